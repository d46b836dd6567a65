"""C9: with batch norm, degradation is not due to vanishing gradients either.

Paper: Sec. 4.1: "healthy norms".
The test is two-sided: gradients may vanish or explode.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from reslearn.paper.experiment import Experiment, Result, model_name
from reslearn.paper.trained import Trained
from reslearn.report import Figure, Series
from reslearn.report.content import VerdictOutcome
from reslearn.report.curves import interval_note, seeds_series

if TYPE_CHECKING:
    from reslearn.analysis import Gradients

_BOUND = 100.0
_NUM_IMAGES = 256  # one batch, large enough that its mean gradient is more than noise

EXPERIMENT = Experiment(
    name="C9",
    text="Nor is it vanishing gradients: with batch norm their norms are healthy",
    section="Sec. 4.1",
    rule=(
        "The deepest plain network is measured at its start, at each snapshot and at the end, on "
        "one fixed batch. The measure is the median gradient norm of the first third of layers "
        "over the median of the last third, both for the weights and for the outputs of blocks "
        f"(the backward propagated signal). A ratio is healthy if it lies between 1/{_BOUND:g} and "
        f"{_BOUND:g}, both included. Learning rates differ by about two powers of ten in practice, "
        "so one rate can still serve all layers within this range. Signals that vanish or explode "
        "do so exponentially in depth and leave it far behind. Shown: every ratio of every judged "
        "seed is healthy, and the ratio of the control is not. The control is the same network at "
        "its start with N(0, 0.01) weights and no batch norm; it shows that the measure can "
        "detect a vanishing signal. Not shown: at some moment the geometric mean of a ratio over "
        "seeds is not healthy, in either direction. Undecided: everything else."
    ),
    kinds=("plain",),
)

_CONTROLS: dict[str, dict[str, Any]] = {
    "N(0, 0.01), no batch norm": {"init": "normal_0.01", "normalize": False},
    "He, no batch norm": {"normalize": False},
}


def measure(trained: Trained) -> Result:
    """Measure the gradients of the deepest plain network on every seed, and of the controls."""
    from reslearn.analysis import gradients, gradients_by_moment

    model = model_name("plain", max(trained.budget.depths))
    subjects = trained.subjects(model)
    if not subjects:
        return Result(
            outcome="undecided", measured=f"no finished run of {model}: all diverged", rests_on=()
        )
    by_seed = {
        seed: gradients_by_moment(subject, num_images=_NUM_IMAGES)
        for seed, subject in subjects.items()
    }
    first = next(iter(subjects.values()))
    x, y = first.training_batch(_NUM_IMAGES)
    # In float64, because a signal that vanishes over 56 layers underflows in float32.
    controls = {
        title: gradients(first.untrained(**switches).double(), x.double(), y)
        for title, switches in _CONTROLS.items()
    }
    control = next(iter(controls.values()))
    means = _means(list(by_seed.values()))
    outcome = decide(
        _ratios(itertools.chain.from_iterable(by_seed.values())),
        list(itertools.chain.from_iterable(mean.values() for mean in means.values())),
        control_ratio=control.signal_ratio,
    )
    return Result(
        outcome="undecided" if trained.is_lost(model) else outcome,
        measured=_sentence(model, means, control, len(by_seed)),
        numbers={
            "model": model,
            "mean_ratios_by_step": means,
            "by_seed": {
                seed: [asdict(moment) for moment in moments] for seed, moments in by_seed.items()
            },
            "controls": {title: asdict(control) for title, control in controls.items()},
        },
        figures=(
            _figure(model, by_seed, controls, "weights"),
            _figure(model, by_seed, controls, "signal"),
        ),
        rests_on=tuple(subject.folder.path.name for subject in subjects.values()),
    )


def decide(ratios: list[float], means: list[float], *, control_ratio: float) -> VerdictOutcome:
    """Apply the rule to the ratios of seeds, to their geometric means, and to the control."""
    if not all(map(_is_healthy, means)):
        return "not shown"
    is_sensitive = not _is_healthy(control_ratio)
    return "shown" if is_sensitive and all(map(_is_healthy, ratios)) else "undecided"


def _is_healthy(ratio: float) -> bool:
    return 1 / _BOUND <= ratio <= _BOUND  # nan is not healthy


def _ratios(moments: Iterable[Gradients]) -> list[float]:
    ratios = []
    for moment in moments:
        ratios += [moment.weights_ratio, moment.signal_ratio]
    return ratios


def _means(runs: list[list[Gradients]]) -> dict[int, dict[str, float]]:
    """Return the geometric means over seeds: {step: {"weights": ..., "signal": ...}}."""
    means = {}
    for moments in zip(*runs, strict=True):
        means[moments[0].step] = {
            "weights": _geometric_mean([moment.weights_ratio for moment in moments]),
            "signal": _geometric_mean([moment.signal_ratio for moment in moments]),
        }
    return means


def _geometric_mean(ratios: list[float]) -> float:
    has_zero, has_infinity = 0 in ratios, math.inf in ratios
    if any(math.isnan(ratio) for ratio in ratios) or (has_zero and has_infinity):
        return math.nan
    if has_zero:
        return 0.0
    return math.inf if has_infinity else statistics.geometric_mean(ratios)


def _sentence(
    model: str, means: dict[int, dict[str, float]], control: Gradients, num_seeds: int
) -> str:
    moments, problems = [], []
    for step, mean in means.items():
        moments.append(f"step {step} {mean['weights']:.2g} / {mean['signal']:.2g}")
        unhealthy = [ratio for ratio in mean.values() if not _is_healthy(ratio)]
        if unhealthy:
            explodes = max(unhealthy) > 1
            direction = "exploding toward the first layers" if explodes else "vanishing"
            problems.append(f"at step {step} {direction}")
    return (
        f"{model}, gradients of first layers over last, weights / signal: {', '.join(moments)} "
        f"(n={num_seeds}): {', '.join(problems) or 'healthy at every moment'}; control without "
        f"batch norm {control.signal_ratio:.1g}"
    )


def _figure(
    model: str, by_seed: dict[int, list[Gradients]], controls: dict[str, Gradients], kind: str
) -> Figure:
    series: list[Series] = []
    for moments in zip(*by_seed.values(), strict=True):
        title = f"step {moments[0].step}"
        curves = {seed: _norms(moment, kind) for seed, moment in zip(by_seed, moments, strict=True)}
        series += seeds_series(title, curves, group=title, log=True)
    norms = [norm for line in series for norm in line.y if norm is not None and 0 < norm < math.inf]
    for title, control in controls.items():
        series += seeds_series(title, {0: _norms(control, kind)}, group=title, dashed=True)
    location, x_label = {
        "weights": ("weights of each convolution", "convolution"),
        "signal": ("output of each block", "block"),
    }[kind]
    return Figure(
        name=f"c9-gradients-{kind}",
        title=f"Gradients of {model} by {location}",
        caption=(
            "L2 norm of the gradient of the mean loss of one batch, in network order, at several "
            "steps. Dashed: the same network at its start without batch norm. The signal vanishes "
            "on its way back where a curve rises to the right. The axis ends four powers of ten "
            f"below the other curves.{interval_note(len(by_seed), log=True)}"
        ),
        x_label=x_label,
        y_label="gradient norm",
        series=series,
        y_log=True,
        y_limits=(min(norms) / 1e4, max(norms) * 2) if norms else None,
    )


def _norms(moment: Gradients, kind: str) -> list[tuple[int, float]]:
    layers = moment.weights if kind == "weights" else moment.signal
    return [
        (number, layer.norm if layer.norm > 0 else math.nan)
        for number, layer in enumerate(layers, 1)
    ]
