"""Figures like the paper's Figures 1 and 6: error over iterations, and error against depth.

As in the paper, dashed lines are training error on augmented batches, and bold lines are test
error. Both are means over seeds; each seed is a pale line.
"""

from collections.abc import Mapping, Sequence

from reslearn.paper.experiment import BOTH, model_name
from reslearn.paper.trained import TEST_ERROR, TRAINING_ERROR, Trained
from reslearn.report import Figure, Panels, Series
from reslearn.report.curves import Curve, curve, error_styles, interval_note, seeds_series
from reslearn.study.collect import Kind


def paper_figures(trained: Trained) -> list[Panels | Figure]:
    """Return Figure 1, Figure 6 and error against depth, as far as their runs exist."""
    finished = {kind: trained.finished_depths(kind) for kind in BOTH}
    figures: list[Panels | Figure] = []
    if len(finished["plain"]) > 1:
        figures.append(Panels(figure_1(trained, finished["plain"])))
    if any(finished.values()):
        panels = [figure_6(trained, kind, depths) for kind, depths in finished.items() if depths]
        figures += [Panels(panels), against_depth(trained, finished)]
    return figures


def figure_1(trained: Trained, depths: Sequence[int]) -> list[Figure]:
    """Compare the deepest plain network with the depth nearest to the paper's 20 layers.

    Returns:
        The panel of training errors, and the panel of test errors.
    """
    deepest = max(depths)
    shallower = [depth for depth in depths if depth != deepest]
    shallow = min(shallower, key=lambda depth: abs(depth - 20))
    figures = []
    for records, name, side in (("train", "training", "left"), ("test", "test", "right")):
        series: list[Series] = []
        for depth in (shallow, deepest):
            curves = _curves(trained, "plain", depth, records)
            series += seeds_series(f"plain-{depth}", curves, group=f"plain-{depth}")
        figures.append(
            Figure(
                f"figure-1-{name}",
                f"{name.capitalize()} error of plain-{shallow} and plain-{deepest}",
                f"As in Figure 1 of the paper, {side}. Bold lines: mean over seeds. Pale lines: "
                f"single seeds.{_interval_note(trained)}",
                "iteration",
                f"{name} error (%)",
                series,
                y_limits=(0.0, 100.0),
            )
        )
    return figures


def figure_6(trained: Trained, kind: Kind, depths: Sequence[int]) -> Figure:
    """Draw one family: training error dashed, test error bold, one color per depth."""
    series: list[Series] = []
    family = "plain" if kind == "plain" else "ResNet"
    for depth in depths:
        name = f"{family}-{depth}"
        training, test = (_curves(trained, kind, depth, records) for records in ("train", "test"))
        series += seeds_series(f"{name}, training", training, group=name, dashed=True)
        series += seeds_series(f"{name}, test", test, group=name)
    return Figure(
        f"figure-6-{kind}",
        f"{kind.capitalize()} networks",
        "As in Figure 6 of the paper. Training error is the error of the augmented training "
        f"batches.{_interval_note(trained)}",
        "iteration",
        "error (%)",
        series,
        y_limits=(0.0, 100.0),
        styles=error_styles(len(trained.seeds)),
    )


def against_depth(trained: Trained, depths_by_kind: Mapping[Kind, Sequence[int]]) -> Figure:
    """Draw training and test error at the end of training against depth, with intervals."""
    series: list[Series] = []
    for kind, depths in depths_by_kind.items():
        for result_field, name in ((TRAINING_ERROR, "training"), (TEST_ERROR, "test")):
            errors = trained.by_depth(kind, result_field, depths)
            curves: dict[int, Curve] = {
                seed: list(zip(depths, values, strict=True))
                for seed, values in zip(trained.seeds, errors, strict=True)
            }
            is_dashed = name == "training"
            series += seeds_series(f"{kind}, {name}", curves, group=kind, dashed=is_dashed)
    return Figure(
        "error-against-depth",
        "Error against depth",
        "Error at the end of training. Training error is on clean images with recomputed "
        f"batch-norm statistics.{_interval_note(trained)}",
        "layers",
        "error (%)",
        series,
        y_limits=(0.0, 100.0),
        styles=error_styles(len(trained.seeds)),
    )


def _interval_note(trained: Trained) -> str:
    return interval_note(len(trained.seeds))


def _curves(trained: Trained, kind: Kind, depth: int, records: str) -> dict[int, Curve | None]:
    """Return the curve of each seed; None for a diverged run."""
    curves: dict[int, Curve | None] = {}
    for seed, run in trained.runs_of(model_name(kind, depth)).items():
        curves[seed] = None if run is None else curve(run.metrics(), records, "top1_error_pct")
    return curves
