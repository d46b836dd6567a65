"""What `reslearn analyze` left in a run (analysis/NAME.json), one section each, drawn from the plain values alone.

Place in the paper: Fig. 7 (responses), Sec. 4.1 (gradients), Sec. 1 (levels of features, read by probes). Beyond it: lesions and path
lengths (Veit et al. 2016), the loss landscape (Li et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from reslearn.report.content import Figure, HeatMap, Item, Panels, Section, Series, Style
from reslearn.report.responses import response_figures
from reslearn.runs import RunError, RunFolder

Record = Mapping[str, Any]


def analysis_sections(run: RunFolder) -> list[Section]:
    """A section for each analysis that the run holds and that is known here. RunError where one cannot be read or drawn."""
    records = run.analyses()
    sections = []
    for name, (title, draw) in _SECTIONS.items():
        if name in records:
            try:
                text, items = draw(records[name])
            except RunError:
                raise
            except (TypeError, ValueError, AttributeError, IndexError) as error:
                path = run.path / "analysis" / f"{name}.json"
                raise RunError(
                    f"{path}: not what `reslearn analyze` writes ({error}); run it again"
                ) from None
            sections.append(Section(title, text, items))
    return sections


def _responses(record: Record) -> tuple[str, list[Item]]:
    strengths = [layer["standard_deviation"] for layer in record["layers"]]
    text = (
        "Standard deviation of each 3x3 layer's output after batch norm, before ReLU and addition, "
        f"on {record['images']:,} training images. It follows the learned gamma, and the spread of beta over channels."
    )
    return text, [Panels(response_figures({record["model"]: [strengths]}))]


def _gradients(record: Record) -> tuple[str, list[Item]]:
    figures = []
    for key, said in (
        ("weights", "with respect to each convolution's weights"),
        ("signal", "with respect to each block's output"),
    ):
        series = [
            _numbered(f"step {moment['step']:,}", [layer["norm"] for layer in moment[key]])
            for moment in record["moments"]
        ]
        unit = "convolution" if key == "weights" else "block"
        caption = f"L2 norm of the gradient of the mean loss {said}."
        figures.append(
            Figure(
                f"gradients-{key}",
                f"Gradient by {unit}",
                caption,
                f"{unit}, in network order",
                "gradient norm",
                series,
                y_log=True,
            )
        )
    ratios = ", ".join(
        f"{_said(moment['signal_ratio'])} at step {moment['step']:,}"
        for moment in record["moments"]
    )
    text = (
        f"One backward pass in training mode on {record['images']:,} clean training images. First third of the blocks over the last third "
        f"(below 1 the gradient vanishes on its way back, above 1 it explodes): {ratios}."
    )
    return text, [Panels(figures)]


def _probes(record: Record) -> tuple[str, list[Item]]:
    styles: dict[str, Style] = {"trained": "line", "untrained": "dashed"}
    series = [
        Series(
            f"{net} network",
            range(len(record[net])),
            [probe["test_error_pct"] for probe in record[net]],
            style,
        )
        for net, style in styles.items()
    ]
    dimension = record["trained"][0]["dimension"]
    text = (
        f"Logistic regression on each stage's output, averaged over positions and brought to {dimension} dimensions for all stages, fitted "
        f"on {record['train_images']:,} training images and read on {record['test_images']:,} test images."
    )
    caption = "The lower, the more of the class a linear reader finds there."
    return text, [
        Figure(
            "probes",
            "Error of a linear probe by stage",
            caption,
            "stage (0: stem)",
            "test error (%)",
            series,
        )
    ]


def _lesion(record: Record) -> tuple[str, list[Item]]:
    intact = record["intact"]["top1_error_pct"]
    numbers, errors = (
        [block[key] for block in record["one_dropped"]] for key in ("number", "top1_error_pct")
    )
    series = [
        Series("one block dropped", numbers, errors),
        Series("intact", numbers, [intact] * len(numbers), "dashed"),
    ]
    text = (
        f"On {record['test_images']:,} test images, nothing trained again, batch-norm statistics as trained (Veit, Wilber, Belongie 2016, "
        f"Sec. 4). A dropped residual block is its shortcut, a plain one is taken out whole. Intact, the network errs by {intact:.2f} %."
    )
    if record["not_droppable"]:
        text += f" Blocks that change the shape cannot be taken out: {', '.join(record['not_droppable'])}."
    if numbers:
        worst = max(record["one_dropped"], key=lambda block: block["top1_error_pct"])
        text += f" The worst to lose is {worst['block']} ({worst['top1_error_pct']:.2f} %)."
    dropped = [entry["num_blocks"] for entry in record["some_dropped"]]
    order = sorted(record["reordered"], key=lambda entry: float(entry["mean_kendall_tau"]))
    figures = [
        Figure(
            "lesion-block",
            "One block dropped",
            "By the block that is missing.",
            "block, in network order",
            "test error (%)",
            series,
        ),
        Figure(
            "lesion-number",
            "Several blocks dropped",
            "Random choices: mean, and a standard deviation to either side.",
            "blocks dropped",
            "test error (%)",
            [_spread("random blocks dropped", dropped, record["some_dropped"])],
        ),
    ]
    items: list[Item] = [Panels(figures)] if numbers else []
    if order:
        taus = [round(entry["mean_kendall_tau"], 3) for entry in order]
        caption = "Random swaps of two blocks of one shape: mean, and a standard deviation to either side. At 1 the order is as trained."
        swapped = [
            _spread("blocks swapped", taus, order),
            Series("intact", [min(taus), 1.0], [intact, intact], "dashed"),
        ]
        items.append(
            Figure(
                "lesion-order",
                "Blocks in another order",
                caption,
                "Kendall's tau of the order",
                "test error (%)",
                swapped,
            )
        )
    return text, items


def _paths(record: Record) -> tuple[str, list[Item]]:
    lengths = record["lengths"]
    x, half = [entry["length"] for entry in lengths], record["num_blocks"] / 2
    text = (
        f"Each of {record['num_blocks']} blocks hands the gradient through its body or its shortcut: 2^{record['num_blocks']} paths "
        f"(Veit, Wilber, Belongie 2016, Sec. 5). Paths have {record['mean_length']:g} bodies on average; weighted by contribution (number "
        f"of paths of a length times the mean norm of their gradient), {_said(record['effective_length'])}. Paths of {record['low']} to "
        f"{record['high']} bodies, {_said(record['within_pct'])} % of all, give at least 95 % of the contribution; those through fewer "
        f"than {half:g} give {_said(record['short_pct'])} %. Measured in training mode on {record['images']:,} training images."
    )
    name, caption = (
        "path length (blocks)",
        "Dashed: paths through so many bodies. Bold: their contribution.",
    )
    means, least, greatest = (
        [entry[f"{key}_gradient_norm"] for entry in lengths]
        for key in ("mean", "least", "greatest")
    )
    norm = Series("mean over paths drawn", x, means, low=least, high=greatest)
    shares = [
        Series("all paths", x, [entry["paths_pct"] for entry in lengths], "dashed"),
        Series("contribution", x, [entry["contribution_pct"] for entry in lengths]),
    ]
    figures = [
        Figure(
            "paths-gradient",
            "Gradient by path length",
            "L2 norm at the first block's input, of the batch's mean loss; the band is from "
            "the least to the greatest of the random paths drawn.",
            name,
            "gradient norm",
            [norm],
            y_log=True,
        ),
        Figure(
            "paths-contribution", "Paths and their contribution", caption, name, "share (%)", shares
        ),
    ]
    return text, [Panels(figures)]


def _landscape(record: Record) -> tuple[str, list[Item]]:
    line, across, grid = record["line"], record["across"], record["grid"]
    places = [point["at"] for point in line["points"]]
    figures = []
    kinds = (
        ("loss", "Loss", "cross-entropy", "nats"),
        ("top1_error_pct", "Error", "training error (%)", "percentage points"),
    )
    for key, title, label, unit in kinds:
        values = [point[key] for point in line["points"]]
        series = [Series("along the line", places, values)]
        series.append(
            Series(
                "straight between the ends",
                [places[0], places[-1]],
                [values[0], values[-1]],
                "dashed",
            )
        )
        caption = (
            f"Barrier, the most above the straight line: {_said(line[f'barrier_{key}'])} {unit}."
        )
        figures.append(
            Figure(f"line-{title.lower()}", f"{title} along the line", caption, "t", label, series)
        )
    text = (
        f"Along: all parameters on the straight line from {record['start']} (t = 0) to {record['end']} (t = 1). Across: random directions, "
        "filter by filter as long as the weights, biases and batch norm left alone (Li et al. 2018, Sec. 4). Batch-norm statistics are "
        f"computed anew at each point; loss and error are of {record['images']:,} training images."
    )
    curve = Series("across", [point["at"] for point in across], [point["loss"] for point in across])
    caption = "From the trained network in a random direction; at distance 1 each filter has moved by its own length."
    log = _positive(curve.y)
    items: list[Item] = [
        Panels(figures),
        Figure("across", "Loss across", caption, "distance", "cross-entropy", [curve], y_log=log),
    ]
    if grid is not None:
        items.append(
            HeatMap(
                "landscape",
                "Loss over two random directions",
                "The deeper the shade, the greater the loss, on a logarithmic scale.",
                "distance, first direction",
                "distance, second direction",
                "loss",
                grid["distances"],
                grid["distances"],
                grid["loss"],
                log=_positive([value for row in grid["loss"] for value in row]),
            )
        )
    return text, items


_SECTIONS: dict[str, tuple[str, Callable[[Record], tuple[str, list[Item]]]]] = {
    "responses": ("Responses of layers", _responses),
    "gradients": ("Gradients by layer", _gradients),
    "probes": ("Linear probes", _probes),
    "lesion": ("Lesions", _lesion),
    "paths": ("Lengths of paths", _paths),
    "landscape": ("Loss landscape", _landscape),
}


def _numbered(name: str, values: Sequence[float | None]) -> Series:
    return Series(name, range(1, len(values) + 1), values)


def _spread(name: str, x: Sequence[float], entries: Sequence[Record]) -> Series:
    means = [entry["mean_top1_error_pct"] for entry in entries]
    low, high = _around(
        [(entry["mean_top1_error_pct"], entry["sd_top1_error_pct"]) for entry in entries],
        least=0.0,
        most=100.0,
    )
    return Series(name, x, means, low=low, high=high)


def _around(
    numbers: Iterable[tuple[float | None, float | None]],
    *,
    least: float = -math.inf,
    most: float = math.inf,
) -> tuple[list[float | None], list[float | None]]:
    """A standard deviation below and above each mean, within what can be; the mean itself where there is no deviation."""
    low: list[float | None] = []
    high: list[float | None] = []
    for mean, deviation in numbers:
        low.append(None if mean is None else max(least, mean - (deviation or 0.0)))
        high.append(None if mean is None else min(most, mean + (deviation or 0.0)))
    return low, high


def _positive(values: Sequence[float | None]) -> bool:
    return all(value is None or math.isnan(value) or value > 0 for value in values)


def _said(value: float | None) -> str:
    return "not a finite number" if value is None else f"{value:.3g}"
