"""C9: nor is degradation due to vanishing gradients, with batch norm (Sec. 4.1: "healthy norms"). Measured from both sides."""

import math
import statistics
from typing import TYPE_CHECKING, Any

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Claim, Finding, Outcome, Runs, RunSpec
from reslearn.paper.subjects import judged_subjects, rests_on, unless_lost
from reslearn.report import Figure, Series
from reslearn.report.curves import interval_note, seeds_series

if TYPE_CHECKING:
    from reslearn.analysis import Gradients

_BOUND = 100.0
_NUM_IMAGES = 256  # one batch, large enough that its mean gradient is not noise

CLAIM = Claim(
    identifier="C9",
    text="Nor is it vanishing gradients: with batch norm their norms are healthy",
    section="Sec. 4.1",
    rule="The deepest plain net, at its start, at each snapshot and at the end, on one fixed batch: the ratio of gradient norms, "
    "median of the first third of layers over median of the last third, both by weights and by the outputs of blocks (the "
    f"backward propagated signal). Healthy is a ratio from 1/{_BOUND:g} to {_BOUND:g}: two powers of ten are about what learning "
    "rates differ by in practice, so that one rate for all layers can still serve them, while signals that vanish or explode do "
    "so exponentially in depth and leave that range far behind. Shown if every ratio of every judged seed is healthy and the "
    "control, the same net at its start with N(0, 0.01) weights and no batch norm, is not (else the measure would be blind). "
    "Not shown if at some moment the geometric mean over seeds of a ratio is not healthy, to either side. Undecided otherwise.",
)

_CONTROLS: dict[str, dict[str, Any]] = {
    "N(0, 0.01), no batch norm": {"init": "normal_0.01", "normalize": False},
    "He, no batch norm": {"normalize": False},
}


def conditions(budget: Budget) -> list[RunSpec]:
    """The runs that choose the learning rates of plain nets."""
    return protocol.choice_conditions(budget, ["plain"])


def judged_conditions(evidence: Runs) -> list[RunSpec]:
    """Plain nets at their learning rates."""
    return protocol.judged_conditions(evidence, ["plain"])


def judge(evidence: Runs) -> Finding:
    """Every moment of the deepest plain net, every seed; controls at the start of the first."""
    from dataclasses import asdict

    from reslearn.analysis import gradients, gradients_by_moment

    name = protocol.model_name("plain", max(evidence.budget.depths))
    subjects = judged_subjects(evidence, name)
    if not subjects:
        return Finding(
            claim=CLAIM, outcome="undecided", measured=f"no run of {name} came to its end"
        )
    by_seed = {
        seed: gradients_by_moment(subject, num_images=_NUM_IMAGES)
        for seed, subject in subjects.items()
    }
    first = next(iter(subjects.values()))
    x, y = first.training_batch(_NUM_IMAGES)
    # In float64: what vanishes over 56 layers is no float32 any more.
    controls = {
        kind: gradients(first.untrained(**switches).double(), x.double(), y)
        for kind, switches in _CONTROLS.items()
    }
    means = _means(list(by_seed.values()))
    ratios = [
        ratio
        for moments in by_seed.values()
        for moment in moments
        for ratio in (moment.weights_ratio, moment.signal_ratio)
    ]
    sees = not _is_healthy(next(iter(controls.values())).signal_ratio)
    return Finding(
        claim=CLAIM,
        outcome=unless_lost(
            _outcome(
                ratios, [ratio for moment in means.values() for ratio in moment.values()], sees=sees
            ),
            evidence,
            name,
        ),
        measured=_sentence(name, means, next(iter(controls.values())), len(by_seed)),
        numbers={
            "model": name,
            "mean_ratios_by_step": means,
            "by_seed": {
                seed: [asdict(moment) for moment in moments] for seed, moments in by_seed.items()
            },
            "controls": {kind: asdict(control) for kind, control in controls.items()},
        },
        figures=tuple(_figure(name, by_seed, controls, kind) for kind in ("weights", "signal")),
        rests_on=rests_on(list(subjects.values())),
    )


def _outcome(ratios: list[float], means: list[float], *, sees: bool) -> Outcome:
    if any(not _is_healthy(mean) for mean in means):
        return "not shown"
    return "shown" if sees and all(map(_is_healthy, ratios)) else "undecided"


def _is_healthy(ratio: float) -> bool:
    return 1 / _BOUND <= ratio <= _BOUND  # NaN is not


def _means(runs: "list[list[Gradients]]") -> dict[int, dict[str, float]]:
    """{step: {"weights": ..., "signal": ...}}: geometric means over seeds."""
    return {
        moments[0].step: {
            "weights": _geometric([moment.weights_ratio for moment in moments]),
            "signal": _geometric([moment.signal_ratio for moment in moments]),
        }
        for moments in zip(*runs, strict=True)
    }


def _geometric(ratios: list[float]) -> float:
    if any(math.isnan(ratio) for ratio in ratios):
        return math.nan
    if 0 in ratios or math.inf in ratios:
        return (
            math.nan if 0 in ratios and math.inf in ratios else (0.0 if 0 in ratios else math.inf)
        )
    return statistics.geometric_mean(ratios)


def _sentence(
    name: str, means: dict[int, dict[str, float]], control: "Gradients", num_seeds: int
) -> str:
    moments = ", ".join(
        f"step {step} {mean['weights']:.2g} / {mean['signal']:.2g}" for step, mean in means.items()
    )
    unhealthy = {
        step: [ratio for ratio in mean.values() if not _is_healthy(ratio)]
        for step, mean in means.items()
    }
    told = [
        f"at step {step} {'exploding toward the first layers' if max(ratios) > 1 else 'vanishing'}"
        for step, ratios in unhealthy.items()
        if ratios
    ]
    return (
        f"{name}, gradients of first layers over last, weights / signal: {moments} (n={num_seeds}): "
        f"{', '.join(told) or 'healthy at every moment'}; control without batch norm {control.signal_ratio:.1g}"
    )


def _figure(
    name: str, by_seed: "dict[int, list[Gradients]]", controls: "dict[str, Gradients]", kind: str
) -> Figure:
    def norms(found: "Gradients") -> list[tuple[int, float]]:
        layers = found.weights if kind == "weights" else found.signal
        return [
            (place, layer.norm if layer.norm > 0 else math.nan)
            for place, layer in enumerate(layers, 1)
        ]

    series: list[Series] = []
    for moments in zip(*by_seed.values(), strict=True):
        title = f"step {moments[0].step}"
        series += seeds_series(
            title,
            {seed: norms(moment) for seed, moment in zip(by_seed, moments, strict=True)},
            group=title,
            log=True,
        )
    ours = [norm for one in series for norm in one.y if norm is not None and 0 < norm < math.inf]
    for title, control in controls.items():
        series += seeds_series(title, {0: norms(control)}, group=title, dashed=True)
    what, x_label = {
        "weights": ("weights of each convolution", "convolution"),
        "signal": ("output of each block", "block"),
    }[kind]
    return Figure(
        name=f"c9-gradients-{kind}",
        title=f"Gradients of {name} by {what}",
        caption="L2 norm of the gradient of the mean loss of one batch, in network order, at the steps given. Dashed: the same net at its "
        "start without batch norm. A curve that rises to the right vanishes on its way back; cut four powers of ten below the rest."
        f"{interval_note(len(by_seed), log=True)}",
        x_label=x_label,
        y_label="gradient norm",
        series=series,
        y_log=True,
        y_limits=(min(ours) / 1e4, max(ours) * 2) if ours else None,
    )
