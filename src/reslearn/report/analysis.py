"""The analyses of a run (analysis/NAME.json, written by `reslearn analyze`), one section each.

From the paper: responses (Fig. 7), gradients (Sec. 4.1), and probes (levels of features, Sec. 1).
From later papers: lesions and path lengths (Veit et al. 2016), and the loss landscape (Li et al.
2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reslearn.report.content import Figure, HeatMap, Item, Panels, Section, Series
from reslearn.report.responses import response_figures
from reslearn.runs import RunError, RunFolder, read_analyses

Record = Mapping[str, Any]


def analysis_sections(run: RunFolder) -> list[Section]:
    """Return one section for each analysis of the run; unknown analyses are ignored.

    Raises:
        RunError: If an analysis cannot be read, or is not the output of `reslearn analyze`.
    """
    records = read_analyses(run)
    sections = []
    for name, (title, draw) in _SECTIONS.items():
        if name not in records:
            continue
        try:
            text, items = draw(records[name])
        except RunError:
            raise
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            path = run.path / "analysis" / f"{name}.json"
            raise RunError(
                f"{path} is not the output of `reslearn analyze` ({error}); run the command again"
            ) from None
        sections.append(Section(title, text, items))
    return sections


def _responses(record: Record) -> tuple[str, list[Item]]:
    deviations = [layer["standard_deviation"] for layer in record["layers"]]
    text = (
        "Standard deviation of the output of each 3x3 layer after batch norm, before ReLU and "
        f"addition, on {record['images']:,} training images. It depends on the learned gamma and "
        "on the spread of beta over channels."
    )
    return text, [Panels(response_figures({record["model"]: [deviations]}))]


def _gradients(record: Record) -> tuple[str, list[Item]]:
    by_convolution = _gradient_figure(
        record, "weights", "convolution", "with respect to the weights of each convolution"
    )
    by_block = _gradient_figure(
        record, "signal", "block", "with respect to the output of each block"
    )
    ratios = []
    for moment in record["moments"]:
        ratios.append(f"{_number_text(moment['signal_ratio'])} at step {moment['step']:,}")
    text = (
        f"One backward pass in training mode on {record['images']:,} clean training images. "
        "Ratio of the gradient norms in the first third of the blocks to those in the last third: "
        f"{', '.join(ratios)}. Below 1 the gradient vanishes on its way back; above 1 it explodes."
    )
    return text, [Panels([by_convolution, by_block])]


def _gradient_figure(record: Record, key: str, unit: str, derivative: str) -> Figure:
    series = []
    for moment in record["moments"]:
        norms = [layer["norm"] for layer in moment[key]]
        series.append(Series(f"step {moment['step']:,}", range(1, len(norms) + 1), norms))
    return Figure(
        name=f"gradients-{key}",
        title=f"Gradient by {unit}",
        caption=f"L2 norm of the gradient of the mean loss {derivative}.",
        x_label=f"{unit}, in network order",
        y_label="gradient norm",
        series=series,
        y_log=True,
    )


def _probes(record: Record) -> tuple[str, list[Item]]:
    series = [
        _probe_series("trained network", record["trained"]),
        _probe_series("untrained network", record["untrained"], is_baseline=True),
    ]
    dimension = record["trained"][0]["dimension"]
    text = (
        "Logistic regression on the output of each stage, averaged over positions and projected "
        f"to {dimension} dimensions for all stages. It is fitted on {record['train_images']:,} "
        f"training images and evaluated on {record['test_images']:,} test images."
    )
    figure = Figure(
        name="probes",
        title="Error of a linear probe by stage",
        caption="A lower error means that a linear classifier finds more of the class there.",
        x_label="stage (0: stem)",
        y_label="test error (%)",
        series=series,
    )
    return text, [figure]


def _probe_series(name: str, probes: Sequence[Record], is_baseline: bool = False) -> Series:
    errors = [probe["test_error_pct"] for probe in probes]
    return Series(name, range(len(probes)), errors, "dashed" if is_baseline else "line")


def _lesion(record: Record) -> tuple[str, list[Item]]:
    intact = record["intact"]["top1_error_pct"]
    blocks = record["one_dropped"]
    text = (
        f"Error on {record['test_images']:,} test images, without further training and with the "
        "batch-norm statistics of training (Veit, Wilber, Belongie 2016, Sec. 4). A removed "
        "residual block leaves its shortcut; a removed plain block leaves nothing. The error of "
        f"the intact network is {intact:.2f} %."
    )
    if record["not_droppable"]:
        fixed = ", ".join(record["not_droppable"])
        text += f" Blocks that change the shape cannot be removed: {fixed}."
    items: list[Item] = []
    if blocks:
        worst = max(blocks, key=lambda block: block["top1_error_pct"])
        text += (
            f" The most important block is {worst['block']}: without it, the error is "
            f"{worst['top1_error_pct']:.2f} %."
        )
        several = _removed_blocks_figure(record["some_dropped"])
        items.append(Panels([_removed_block_figure(blocks, intact), several]))
    if record["reordered"]:
        items.append(_reordered_figure(record["reordered"], intact))
    return text, items


def _removed_block_figure(blocks: Sequence[Record], intact: float) -> Figure:
    numbers = [block["number"] for block in blocks]
    errors = [block["top1_error_pct"] for block in blocks]
    return Figure(
        name="lesion-block",
        title="One block removed",
        caption="Error of the network without the block.",
        x_label="block, in network order",
        y_label="test error (%)",
        series=[
            Series("one block removed", numbers, errors),
            Series("intact", numbers, [intact] * len(numbers), "dashed"),
        ],
    )


def _removed_blocks_figure(entries: Sequence[Record]) -> Figure:
    numbers = [entry["num_blocks"] for entry in entries]
    return Figure(
        name="lesion-number",
        title="Several blocks removed",
        caption="Blocks are chosen at random. Shading: one standard deviation around the mean.",
        x_label="blocks removed",
        y_label="test error (%)",
        series=[_error_series("random blocks removed", numbers, entries)],
    )


def _reordered_figure(entries: Sequence[Record], intact: float) -> Figure:
    ordered = sorted(entries, key=lambda entry: float(entry["mean_kendall_tau"]))
    taus = [round(entry["mean_kendall_tau"], 3) for entry in ordered]
    return Figure(
        name="lesion-order",
        title="Blocks in another order",
        caption=(
            "Blocks of the same shape are swapped at random. Shading: one standard deviation "
            "around the mean. At 1 the order is unchanged."
        ),
        x_label="Kendall's tau of the order",
        y_label="test error (%)",
        series=[
            _error_series("blocks swapped", taus, ordered),
            Series("intact", [min(taus), 1.0], [intact, intact], "dashed"),
        ],
    )


def _error_series(name: str, x: Sequence[float], entries: Sequence[Record]) -> Series:
    """Return the mean error with a band of one standard deviation, within 0 and 100 %."""
    means, low, high = [], [], []
    for entry in entries:
        mean, deviation = entry["mean_top1_error_pct"], entry["sd_top1_error_pct"] or 0.0
        means.append(mean)
        low.append(None if mean is None else max(0.0, mean - deviation))
        high.append(None if mean is None else min(100.0, mean + deviation))
    return Series(name, x, means, low=low, high=high)


def _paths(record: Record) -> tuple[str, list[Item]]:
    lengths = record["lengths"]
    num_blocks, half = record["num_blocks"], record["num_blocks"] / 2
    text = (
        f"Each of {num_blocks} blocks passes the gradient through its body or its shortcut, which "
        f"gives 2^{num_blocks} paths (Veit, Wilber, Belongie 2016, Sec. 5). The length of a path "
        f"is its number of bodies: {record['mean_length']:g} on average, and "
        f"{_number_text(record['effective_length'])} when weighted by contribution. The "
        "contribution of a length is its number of paths times the mean norm of their gradient. "
        f"Paths of {record['low']} to {record['high']} bodies, {_number_text(record['within_pct'])}"
        " % of all, give at least 95 % of the contribution. Paths of fewer than "
        f"{half:g} bodies give {_number_text(record['short_pct'])} %. Measured in training mode "
        f"on {record['images']:,} training images."
    )
    x = [entry["length"] for entry in lengths]
    norms = Series(
        "mean over sampled paths",
        x,
        [entry["mean_gradient_norm"] for entry in lengths],
        low=[entry["least_gradient_norm"] for entry in lengths],
        high=[entry["greatest_gradient_norm"] for entry in lengths],
    )
    gradient = Figure(
        name="paths-gradient",
        title="Gradient by path length",
        caption=(
            "L2 norm of the gradient of the batch's mean loss at the input of the first block. "
            "Shading: from the lowest to the highest norm of the sampled paths."
        ),
        x_label="path length (blocks)",
        y_label="gradient norm",
        series=[norms],
        y_log=True,
    )
    shares = [
        Series("all paths", x, [entry["paths_pct"] for entry in lengths], "dashed"),
        Series("contribution", x, [entry["contribution_pct"] for entry in lengths]),
    ]
    contribution = Figure(
        name="paths-contribution",
        title="Paths and their contribution",
        caption="Dashed: share of all paths. Bold: share of the contribution.",
        x_label="path length (blocks)",
        y_label="share (%)",
        series=shares,
    )
    return text, [Panels([gradient, contribution])]


def _landscape(record: Record) -> tuple[str, list[Item]]:
    text = (
        f"Along: all parameters on the straight line from {record['start']} (t = 0) to "
        f"{record['end']} (t = 1). Across: random directions, scaled so that each filter has the "
        "length of the filter of the weights; biases and batch norm stay unchanged (Li et al. "
        "2018, Sec. 4). Batch-norm statistics are recomputed at each point. Loss and error are "
        f"measured on {record['images']:,} training images."
    )
    loss = _line_figure(record["line"], "loss", "Loss", "cross-entropy", "nats")
    error = _line_figure(
        record["line"], "top1_error_pct", "Error", "training error (%)", "percentage points"
    )
    losses = [point["loss"] for point in record["across"]]
    across = Figure(
        name="across",
        title="Loss across",
        caption=(
            "From the trained network in a random direction. At distance 1 each filter has moved "
            "by its own length."
        ),
        x_label="distance",
        y_label="cross-entropy",
        series=[Series("across", [point["at"] for point in record["across"]], losses)],
        y_log=_is_positive(losses),
    )
    items: list[Item] = [Panels([loss, error]), across]
    if record["grid"] is not None:
        items.append(_landscape_map(record["grid"]))
    return text, items


def _line_figure(line: Record, key: str, title: str, y_label: str, unit: str) -> Figure:
    positions = [point["at"] for point in line["points"]]
    values = [point[key] for point in line["points"]]
    barrier = _number_text(line[f"barrier_{key}"])
    ends = [positions[0], positions[-1]], [values[0], values[-1]]
    return Figure(
        name=f"line-{title.lower()}",
        title=f"{title} along the line",
        caption=f"Barrier, the maximum height above the straight line: {barrier} {unit}.",
        x_label="t",
        y_label=y_label,
        series=[
            Series("along the line", positions, values),
            Series("straight between the ends", *ends, "dashed"),
        ],
    )


def _landscape_map(grid: Record) -> HeatMap:
    log = all(_is_positive(row) for row in grid["loss"])
    scale = ", on a logarithmic scale" if log else ""
    return HeatMap(
        name="landscape",
        title="Loss over two random directions",
        caption=f"A deeper shade is a higher loss{scale}.",
        x_label="distance, first direction",
        y_label="distance, second direction",
        value_label="loss",
        x=grid["distances"],
        y=grid["distances"],
        values=grid["loss"],
        log=log,
    )


_SECTIONS: dict[str, tuple[str, Callable[[Record], tuple[str, list[Item]]]]] = {
    "responses": ("Responses of layers", _responses),
    "gradients": ("Gradients by layer", _gradients),
    "probes": ("Linear probes", _probes),
    "lesion": ("Lesions", _lesion),
    "paths": ("Lengths of paths", _paths),
    "landscape": ("Loss landscape", _landscape),
}


def _is_positive(values: Sequence[float | None]) -> bool:
    return all(value is None or math.isnan(value) or value > 0 for value in values)


def _number_text(value: float | None) -> str:
    return "not a finite number" if value is None else f"{value:.3g}"
