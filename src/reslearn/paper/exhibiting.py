"""From a table or figure of the paper to ours: its runs trained, what they show measured, and a page made of it.

All tables and figures of one budget share one folder of runs, so that each net is trained once. Called again it goes on where it
stopped.
"""

import math
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reslearn.paper.budgets import exhibit_budget
from reslearn.paper.claim import Budget, Evaluate, Fit, Runs
from reslearn.paper.exhibit import Depths, Exhibit, ExhibitModule, Line, Measured
from reslearn.paper.imagenet import imagenet_budget
from reslearn.paper.stages import Stages
from reslearn.paper.wording import or_none
from reslearn.report import Code, Column, Facts, Item, Page, Section, Table, Verdict
from reslearn.report.run import environment_facts, format_duration
from reslearn.runs import to_json_value
from reslearn.study import CONFIDENCE, Engine


@dataclass(frozen=True, kw_only=True)
class ExhibitReport:
    """What came out, and what it rests on."""

    exhibit: Exhibit
    measured: Measured
    evidence: Runs
    seconds: float
    num_runs: int
    num_diverged: int
    failures: tuple[str, ...]
    """Runs that ended without a result for a reason that is no evidence."""


def budget_of(
    module: ExhibitModule,
    name: str,
    data: str | None = None,
    *,
    seeds: int | None = None,
    depths: Sequence[int] = (),
) -> Budget:
    """What the table or figure is made from; `depths` replaces its own. ValueError for what cannot be.

    Without `data`: CIFAR-10, or nothing where the paper's own is ImageNet, which is then said instead of run.
    """
    for depth in depths:
        if depth < 8 or depth % 6 != 2:
            raise ValueError(
                f"--depths {depth}: nets for CIFAR have 6n+2 layers: 8, 14, 20, 26, 32, ..."
            )
    exhibit = module.EXHIBIT
    without_effect = {
        "--depths": depths and not module.DEPTHS,
        "--data": data is not None and exhibit.data == "none",
        "--seeds": seeds is not None and (exhibit.data == "none" or exhibit.names_seeds),
    }
    for option, is_given in without_effect.items():
        if is_given:
            raise ValueError(f"{option} has no effect in {exhibit.name}: leave it out")
    if exhibit.data == "ImageNet":
        return imagenet_budget(name, data, seeds=seeds)
    own = (
        module.DEPTHS.get(name, Depths(both=()))
        if not depths
        else Depths(both=tuple(sorted(set(depths))))
    )
    if own.both and len({*own.both, *own.residual}) < exhibit.fewest_depths:
        raise ValueError(
            f"--depths {own.both[0]}: {exhibit.name} compares at least {exhibit.fewest_depths}, as in 20,56"
        )
    if exhibit.most_depths is not None and len(own.both) > exhibit.most_depths:
        raise ValueError(
            f"--depths {','.join(map(str, own.both))}: {exhibit.name} is of one net, as in --depths {own.both[0]}"
        )
    return exhibit_budget(
        name,
        data or ("" if exhibit.data == "none" else "cifar10"),
        depths=own.both,
        extra_residual_depths=own.residual,
        seeds=seeds,
    )


def run_exhibit(
    module: ExhibitModule,
    budget: Budget,
    folder: Path | str,
    *,
    engine: Engine,
    fit: Fit,
    evaluate: Evaluate,
    data_dir: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    continue_command: str | None = None,
) -> ExhibitReport:
    """Train what is needed below `folder`/runs, and measure. StudyStopped where a signal ended the training."""
    started, folder = time.monotonic(), Path(folder)
    stages = Stages(
        budget,
        folder / "runs",
        engine,
        [] if data_dir is None else ["--data-dir", str(data_dir)],
        say,
    )
    evidence = Runs(
        budget=budget,
        runs=stages.runs,
        folder=folder,
        fit=fit,
        evaluate=evaluate,
        data_dir=data_dir,
        say=say,
    )
    stages.train(module.conditions(budget), module.EXHIBIT.title, continue_command)
    measured = _without_failed(module.measure(evidence), stages.failure_lines())
    measured = replace(measured, notes=(*measured.notes, *stages.notes()))
    return ExhibitReport(
        exhibit=module.EXHIBIT,
        measured=measured,
        evidence=evidence,
        seconds=time.monotonic() - started,
        num_runs=len(stages.runs),
        num_diverged=len(stages.diverged),
        failures=stages.failure_lines(),
    )


def _without_failed(measured: Measured, failures: Sequence[str]) -> Measured:
    """A run that failed (no memory, a full disk) is no evidence, as one that diverged is: lines that lack a run stay undecided then."""
    if not failures:
        return measured
    because = f"{len(failures)} run(s) failed, as {failures[0]}"
    lines = (
        replace(line, outcome="undecided", because=because) if line.num_lost else line
        for line in measured.lines
    )
    return replace(measured, lines=tuple(lines))


def exhibit_page(report: ExhibitReport, *, command: Sequence[str]) -> Page:
    """The page: lines with verdicts, figures, tables, the rule, how to repeat it."""
    measured = report.measured
    run = next(iter(report.evidence.runs.values()), None)
    repeat: list[Item] = [Code(shlex.join(command), "Command")]
    if run is not None:
        repeat.append(Facts(environment_facts(run.environment), "Circumstances of the first run"))
    reasons: list[Item] = [f"{told}." for told in reasons_of(measured.lines)]
    sections = [
        Section(
            "The paper and ours",
            "\n\n".join(measured.notes),
            [lines_table(measured.lines), *reasons] if measured.lines else [],
        ),
        Section("Figures", "", measured.figures),
        Section("Tables", "", measured.tables),
        Section("Rule", report.exhibit.rule),
        Section("How to repeat it", "", repeat),
    ]
    name = report.exhibit.section.partition(",")[0]
    return Page(
        f"{name}: {report.exhibit.title}",
        "He, Zhang, Ren and Sun (2015), and what this machine measured.",
        [section for section in sections if section.items or section.text],
        _facts(report),
    )


def lines_table(lines: Iterable[Line]) -> Table:
    """What, verdict, paper, ours with spread and n, difference with interval."""
    columns: list[Column | str] = ["", "verdict", *(Column(name, numeric=True) for name in HEADS)]
    caption = (
        "Ours: mean ± standard deviation over n seeds, and the interval of the mean. Differences are ours minus the paper's, or those "
        "that a line is about; of a verdict on several depths their interval is simultaneous, and its confidence stands beside it."
    )
    return Table(
        caption, columns, [[line.what, Verdict(line.outcome), *texts(line)] for line in lines]
    )


def reasons_of(lines: Iterable[Line]) -> list[str]:
    """Why the verdicts are what they are; lines of one reason are told together."""
    by_reason: dict[str, list[str]] = {}
    for line in lines:
        if line.because:
            by_reason.setdefault(line.because, []).append(line.what)
    return [
        f"{whats[0]}{f' and {len(whats) - 1} more' if whats[1:] else ''}: {because}"
        for because, whats in by_reason.items()
    ]


_UNITS = {"standard deviation": "", "10^9": " × 10⁹", "10^6": " × 10⁶"}


HEADS = ("paper", "ours (n) [95 %]", "difference [95 %]")
"""What stands above `texts`."""


def texts(line: Line) -> tuple[str, str, str]:
    """The paper's number, ours and the difference, each with its unit."""
    numbers = line.summary
    unit = _UNITS.get(line.unit, f" {line.unit}")
    paper = (
        ""
        if line.paper is None
        else f"{line.paper:.2f}{unit}"
        if line.unit == "%"
        else f"{line.paper:g}{unit}"
    )
    if numbers is None:
        return paper, "", ""
    spread = (
        ""
        if numbers.standard_deviation is None
        else f" ± {numbers.standard_deviation:.{_digits(line)}f}"
    )
    counted = line.unit.startswith("10^")  # nothing random, so that there is no number of seeds
    ours = (
        f"{numbers.mean:.{_digits(line)}f}{spread}{unit}{'' if counted else f' ({numbers.n})'}"
        if numbers.n
        else "no result"
    )
    if (
        line.paper is not None and numbers.interval is not None
    ):  # else it stands beside the difference, which is all there is
        low, high = numbers.interval
        ours += f" [{low:.{_digits(line)}f}, {high:.{_digits(line)}f}]"
    ours += (
        f", {numbers.num_diverged} without a result" if numbers.n and numbers.num_diverged else ""
    )
    return paper, ours, difference_text(line)


def _digits(line: Line) -> int:
    return 3 if line.unit in ("10^9", "10^6", "standard deviation") else 2


def difference_text(line: Line) -> str:
    """+0.12 [-0.30, +0.54], and the confidence where it is another than 95 %."""
    if line.difference is None:
        return ""
    digits = _digits(line)
    around = (
        ""
        if line.interval is None
        else f" [{line.interval.low:+.{digits}f}, {line.interval.high:+.{digits}f}]"
    )
    level = (
        ""
        if math.isclose(line.confidence, CONFIDENCE) or not around
        else f" ({100 * line.confidence:.4g} %)"
    )
    return f"{line.difference:+.{digits}f}{around}{level}"


def exhibit_json(report: ExhibitReport) -> dict[str, Any]:
    """All of it as plain JSON values."""
    return {
        "name": report.exhibit.name,
        "title": report.exhibit.title,
        "section": report.exhibit.section,
        "rule": report.exhibit.rule,
        "budget": report.evidence.budget.name,
        "data": report.evidence.budget.data or None,
        "seconds": round(report.seconds, 1),
        "runs": report.num_runs,
        "diverged": report.num_diverged,
        "lines": [_line_json(line) for line in report.measured.lines],
        "notes": list(report.measured.notes),
        "numbers": to_json_value(report.measured.numbers),
    }


def _line_json(line: Line) -> dict[str, Any]:
    numbers = line.summary
    return {
        "what": line.what,
        "unit": line.unit,
        "paper": line.paper,
        "values": [or_none(value) for value in line.values],
        "mean": None if numbers is None else or_none(numbers.mean),
        "standard_deviation": None if numbers is None else numbers.standard_deviation,
        "interval": None if numbers is None or numbers.interval is None else list(numbers.interval),
        "difference": line.difference,
        "difference_interval": None if line.interval is None else list(line.interval),
        "difference_confidence": None if line.interval is None else line.confidence,
        "verdict": line.outcome,
        "because": line.because,
    }


def _facts(report: ExhibitReport) -> dict[str, str]:
    budget = report.evidence.budget
    facts = {"time": format_duration(report.seconds)}
    if report.num_runs or report.num_diverged:
        diverged = f", {report.num_diverged} diverged" if report.num_diverged else ""
        facts = {
            "data": budget.data,
            "budget": budget.name,
            "runs": f"{report.num_runs} complete{diverged}",
            "seeds": ", ".join(map(str, budget.judge_seeds)),
            **facts,
        }
    return facts
