"""Figures in the manner of the paper's 1 and 6, from the judged runs: error over iterations, and error against depth.

Dashed lines are training error on augmented batches, bold lines test error, as there, both means over seeds; each seed is a pale line.
"""

from collections.abc import Sequence

from reslearn.paper import protocol
from reslearn.paper.claim import Runs
from reslearn.paper.protocol import model_name
from reslearn.report import Figure, Panels, Series
from reslearn.report.content import Style
from reslearn.report.curves import Curve, curve, error_styles, interval_note, seeds_series
from reslearn.study.collect import Kind


def paper_figures(evidence: Runs) -> list[Panels | Figure]:
    """Figure 1, figure 6 and error against depth, as far as the runs for them are there."""
    trained = {kind: protocol.trained(evidence, kind) for kind in protocol.BOTH}
    figures: list[Panels | Figure] = []
    if len(trained["plain"]) > 1:
        figures.append(Panels(figure_1(evidence, trained["plain"])))
    if any(trained.values()):
        figures.append(Panels([figure_6(evidence, kind, at) for kind, at in trained.items() if at]))
        figures.append(against_depth(evidence, trained))
    return figures


def figure_1(evidence: Runs, at: Sequence[int]) -> list[Figure]:
    """The deepest plain net against the paper's 20 layers, or the depth nearest to that: training error left, test error right."""
    shallow = min((depth for depth in at if depth != max(at)), key=lambda depth: abs(depth - 20))
    figures = []
    for name, said in (("train", "training"), ("test", "test")):
        series: list[Series] = []
        for depth in (shallow, max(at)):
            series += seeds_series(
                f"plain-{depth}", _curves(evidence, "plain", depth, name), group=f"plain-{depth}"
            )
        title = f"{said.capitalize()} error of plain-{shallow} and plain-{max(at)}"
        place = "left" if name == "train" else "right"
        caption = f"As the paper's figure 1, {place}. Bold: mean over seeds; pale: each seed.{_bands(evidence)}"
        figures.append(
            Figure(
                f"figure-1-{said}",
                title,
                caption,
                "iteration",
                f"{said} error (%)",
                series,
                y_limits=(0.0, 100.0),
            )
        )
    return figures


def figure_6(evidence: Runs, kind: Kind, at: Sequence[int]) -> Figure:
    """One family: training error dashed, test error bold, a color a depth."""
    series: list[Series] = []
    label = "plain" if kind == "plain" else "ResNet"
    for depth in at:
        name = f"{label}-{depth}"
        series += seeds_series(
            f"{name}, training", _curves(evidence, kind, depth, "train"), group=name, dashed=True
        )
        series += seeds_series(f"{name}, test", _curves(evidence, kind, depth, "test"), group=name)
    return Figure(
        f"figure-6-{kind}",
        f"{kind.capitalize()} networks",
        f"As the paper's figure 6. Training error is of the running, augmented batches.{_bands(evidence)}",
        "iteration",
        "error (%)",
        series,
        y_limits=(0.0, 100.0),
        styles=_styles(evidence),
    )


def against_depth(evidence: Runs, trained: dict[Kind, list[int]]) -> Figure:
    """Training and test error at the end, against depth, with intervals."""
    series: list[Series] = []
    for kind, at in trained.items():
        for field, said in ((protocol.TRAINING_ERROR, "training"), (protocol.TEST_ERROR, "test")):
            by_seed = zip(
                evidence.budget.judge_seeds,
                protocol.by_depth(evidence, kind, field, at),
                strict=True,
            )
            curves: dict[int, Curve] = {
                seed: list(zip(at, errors, strict=True)) for seed, errors in by_seed
            }
            series += seeds_series(f"{kind}, {said}", curves, group=kind, dashed=said == "training")
    return Figure(
        "error-against-depth",
        "Error against depth",
        f"At the end of training. Training error is on clean images with batch-norm statistics recomputed.{_bands(evidence)}",
        "layers",
        "error (%)",
        series,
        y_limits=(0.0, 100.0),
        styles=_styles(evidence),
    )


def _bands(evidence: Runs) -> str:
    return interval_note(len(evidence.budget.judge_seeds))


def _styles(evidence: Runs) -> dict[Style, str]:
    return error_styles(len(evidence.budget.judge_seeds))


def _curves(evidence: Runs, kind: Kind, depth: int, records: str) -> dict[int, Curve | None]:
    """By seed; None for a run that diverged."""
    runs = {
        seed: protocol.judged_run(evidence, model_name(kind, depth), seed)
        for seed in evidence.budget.judge_seeds
    }
    return {
        seed: None if run is None else curve(run.metrics(), records, "top1_error_pct")
        for seed, run in runs.items()
    }
