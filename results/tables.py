"""README's table of results, made from the run folders beside this file: `python results/tables.py` writes it between its two marks.

tests/docs/test_results.py fails where README and runs disagree. Only complete runs count; runs of different recipes are never averaged.
"""

from collections.abc import Iterable
from pathlib import Path

from reslearn.paper.numbers import numbers
from reslearn.report.run import device, duration
from reslearn.runs import RunFolder
from reslearn.study import Summary, collect, table
from reslearn.study.collect import Group, Row

RESULTS = Path(__file__).resolve().parent
README = RESULTS.parent / "README.md"
BEGIN, END = "<!-- results: made by results/tables.py -->", "<!-- end of results -->"
TRAINING, TEST = "train_recomputed_top1_error_pct", "test_top1_error_pct"


def results_table(results: Path = RESULTS) -> str:
    """Markdown: a row for each network and recipe, plain before residual and by depth."""
    found = collect(results)
    # A trial on the validation split chose the recipe; the numbers that count are those of all training images.
    rows = [row for row in found.rows if not row.recipe["data"]["validation_images"]]
    heads = ("network", "recipe", "seeds", "training error %", "test error %", "paper, 164 epochs %", "a run")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for group in table(rows, fields=(TRAINING, TEST)).groups:
        own = [row for row in rows if (row.model, row.protocol) == (group.model, group.protocol)]
        lines.append("| " + " | ".join(_cells(group, own)) + " |")
    return "\n".join(lines)


def _cells(group: Group, rows: list[Row]) -> list[str]:
    recipe = rows[0].recipe
    size = recipe["data"]["size_px"]
    told = f"`{recipe['name']}`, {recipe['schedule']['duration']}" + (f", {size} x {size} pixels" if size else "")
    folders = {row.folder.relative_to(RESULTS).parts[0] for row in rows}
    printed = None if size else numbers("table6").get(group.model)  # it says nothing of smaller pictures
    return [
        f"[{group.model}](results/{'/'.join(sorted(folders))})", told, str(len(group.seeds)), _error(group.summaries.get(TRAINING)),
        _error(group.summaries.get(TEST)), "" if printed is None else f"{printed:.2f}", _runs(rows),
    ]  # fmt: skip


def _error(numbers_: Summary | None) -> str:
    if numbers_ is None:
        return ""
    text = f"{numbers_.mean:.2f}" + ("" if numbers_.standard_deviation is None else f" ± {numbers_.standard_deviation:.2f}")
    around = numbers_.interval
    return text + (f" [{around.low:.2f}, {around.high:.2f}]" if around else "")


def _runs(rows: Iterable[Row]) -> str:
    """On what, and how long: the range over the runs."""
    seconds = sorted(float(row.result["seconds"]) for row in rows)
    places = sorted({device(RunFolder.open(row.folder).environment) for row in rows})
    times = dict.fromkeys(duration(value) for value in (seconds[0], seconds[-1]))
    return f"{' to '.join(times)} ({'; '.join(places)})"


def readme(text: str, made: str) -> str:
    """`text` with the table between the marks replaced. ValueError where they are not there once each, in order."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in after:
        raise ValueError(f"{README}: {BEGIN} and {END} must stand there once each")
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


if __name__ == "__main__":
    README.write_text(readme(README.read_text(encoding="utf-8"), results_table()), encoding="utf-8")
    print(results_table())
