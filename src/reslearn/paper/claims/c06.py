"""C6: normalized initialization and normalization layers let deep networks start to converge.

Paper: Sec. 1.
Four starts: weights N(0, 0.01) or He, with or without batch norm. The network is plain, because
shortcuts would carry the signal. A few steps are enough, since the question is only whether
training starts.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

from reslearn.paper.experiment import Budget, Experiment, Result, RunSpec
from reslearn.paper.trained import Trained
from reslearn.report import Figure, Series
from reslearn.report.content import VerdictOutcome
from reslearn.report.curves import curve, interval_note, seeds_series
from reslearn.runs import RunFolder

if TYPE_CHECKING:
    from reslearn.analysis import Subject

_LEARNING_RATES = (0.1, 0.01)  # Paper: 0.1, and 0.01 to warm up what is hard to start (Sec. 4.2)
_STARTED = 0.9
_STEPS = 120
_NUM_IMAGES = 256


class _Start(NamedTuple):
    title: str
    init: str
    normalize: bool


_MODERN = _Start("He, batch norm", "he_fan_out", True)
_OLD = _Start("N(0, 0.01), no batch norm", "normal_0.01", False)
_STARTS = (
    _MODERN,
    _Start("N(0, 0.01), batch norm", "normal_0.01", True),
    _Start("He, no batch norm", "he_fan_out", False),
    _OLD,
)
_Losses = dict[tuple[float, int], float]  # by learning rate and seed


def specs(budget: Budget) -> list[RunSpec]:
    """Return the runs of the four starts at both learning rates."""
    cells = itertools.product(_STARTS, _LEARNING_RATES, _seeds(budget))
    return [_spec(budget, start, rate, seed) for start, rate, seed in cells]


EXPERIMENT = Experiment(
    name="C6",
    text=(
        "Normalized initialization and normalization layers let nets of tens of layers start to "
        "converge"
    ),
    section="Sec. 1",
    rule=(
        f"A plain network of 20 layers (56 in the full budget) is trained for {_STEPS} steps from "
        "each of four starts: weights N(0, 0.01) or He, with or without batch norm. The learning "
        "rates are 0.1 and 0.01. A start converges on a seed if at one of the two rates the final "
        f"training loss, with recomputed batch-norm statistics, is below {_STARTED:g} times the "
        "loss of guessing, ln(number of classes). A diverged run does not converge. Shown: He "
        "with batch norm converges on every seed, and N(0, 0.01) without batch norm on none. Not "
        "shown: He with batch norm converges on no seed, or N(0, 0.01) without batch norm on "
        "every seed. Undecided: everything else. The two mixed starts show which of the two is "
        "needed; they do not enter the verdict."
    ),
    specs=specs,
)


def measure(trained: Trained) -> Result:
    """Compare the final losses with guessing, and trace the signals before the first step."""
    from reslearn.analysis import Subject

    budget = trained.budget
    finished = [trained.runs[spec] for spec in specs(budget) if spec in trained.runs]
    if not finished:
        return Result(outcome="undecided", measured="all runs diverged", rests_on=())
    subject = Subject.open(finished[0], data_dir=trained.data_dir)
    guessing = math.log(subject.network().num_classes)
    losses = {start.title: _losses(trained, start) for start in _STARTS}
    best = {title: _best_by_seed(cell, _seeds(budget)) for title, cell in losses.items()}
    converges = {
        title: [loss < _STARTED * guessing for loss in cell] for title, cell in best.items()
    }
    signals = {start.title: _signals(subject, start) for start in _STARTS}
    return Result(
        outcome=decide(converges[_MODERN.title], converges[_OLD.title]),
        measured=(
            f"{_model(budget)}, training loss after {_STEPS} steps, the better of lr 0.1 and 0.01 "
            f"(guessing {guessing:.2f}): {_sentence(best, converges)}"
        ),
        numbers={
            "guessing_loss": guessing,
            "loss": {title: _named(cell) for title, cell in losses.items()},
            "signals_at_step_0": signals,
        },
        figures=(
            _curves(trained),
            _signal_figure(budget, signals, "forward"),
            _signal_figure(budget, signals, "backward"),
        ),
        rests_on=tuple(run.path.name for run in finished),
    )


def decide(modern: list[bool], old: list[bool]) -> VerdictOutcome:
    """Apply the rule to whether each seed converges with He and batch norm, and with neither."""
    if all(modern) and not any(old):
        return "shown"
    return "not shown" if not any(modern) or all(old) else "undecided"


def _model(budget: Budget) -> str:
    return "plain56" if budget.name == "full" else "plain20"


def _seeds(budget: Budget) -> tuple[int, ...]:
    """Return two seeds for the budgets of minutes: losses differ so much that two are enough."""
    return budget.judge_seeds[:2] if budget.name in ("demo", "smoke") else budget.judge_seeds


def _spec(budget: Budget, start: _Start, rate: float, seed: int) -> RunSpec:
    overrides = (
        "schedule.kind=constant",
        f'schedule.duration="{_STEPS} steps"',
        f"optimizer.lr={rate:g}",
        f"model.init={start.init}",
        f"model.normalize={str(start.normalize).lower()}",
        "evaluation.snapshots=[]",
        "train.read_every_steps=10",
    )
    return RunSpec(
        model=_model(budget), seed=seed, overrides=overrides, why="whether it starts to converge"
    )


def _losses(trained: Trained, start: _Start) -> _Losses:
    """Return the final training losses of a start; infinite for a diverged run."""
    losses = {}
    for rate in _LEARNING_RATES:
        for seed in _seeds(trained.budget):
            spec = _spec(trained.budget, start, rate, seed)
            losses[rate, seed] = _loss(trained, spec) if spec in trained.runs else math.inf
    return losses


def _loss(trained: Trained, spec: RunSpec) -> float:
    result = trained.result(spec)
    recomputed = result["train_recomputed_loss"]
    return float(result["train_loss"] if recomputed is None else recomputed)


def _best_by_seed(losses: _Losses, seeds: tuple[int, ...]) -> list[float]:
    return [min(losses[rate, seed] for rate in _LEARNING_RATES) for seed in seeds]


def _named(losses: _Losses) -> dict[str, float]:
    return {f"lr {rate:g}, seed {seed}": loss for (rate, seed), loss in losses.items()}


def _sentence(best: dict[str, list[float]], converges: dict[str, list[bool]]) -> str:
    parts = []
    for title, losses in best.items():
        note = "" if any(converges[title]) else " (does not start)"
        parts.append(f"{title}: {sum(losses) / len(losses):.2f}{note}")
    return "; ".join(parts)


def _signals(subject: Subject, start: _Start) -> dict[str, list[float]]:
    """Return the rms of each block's output and the gradient norm at it, before the first step."""
    from reslearn.analysis import forward_signal, gradients

    # In float64, because a signal that vanishes over tens of layers underflows in float32.
    network = subject.untrained(init=start.init, normalize=start.normalize).double()
    images, labels = subject.training_batch(_NUM_IMAGES)
    x = images.double()
    return {
        "forward": [strength for name, strength in forward_signal(network, x) if name != "stem"],
        "backward": [block.norm for block in gradients(network, x, labels).signal],
    }


def _curves(trained: Trained) -> Figure:
    budget = trained.budget
    series: list[Series] = []
    for start in _STARTS:
        for rate in _LEARNING_RATES:
            runs: dict[int, RunFolder | None] = {
                seed: trained.runs.get(_spec(budget, start, rate, seed)) for seed in _seeds(budget)
            }
            curves = {
                seed: curve(run.metrics(), "train", "loss")
                for seed, run in runs.items()
                if run is not None
            }
            series += seeds_series(
                f"{start.title}, lr {rate:g}",
                curves,
                group=start.title,
                dashed=rate != _LEARNING_RATES[0],
            )
    return Figure(
        name="c6-start",
        title=f"Does {_model(budget)} start to converge?",
        caption=(
            "Training loss from four starts. Diverged runs are "
            f"missing.{interval_note(len(_seeds(budget)))}"
        ),
        x_label="step",
        y_label="training loss",
        series=series,
        styles={"line": "lr 0.1", "dashed": "lr 0.01"},
    )


def _signal_figure(
    budget: Budget, signals: dict[str, dict[str, list[float]]], direction: str
) -> Figure:
    label = {
        "forward": "rms of the block's output",
        "backward": "norm of the gradient at the block's output",
    }[direction]
    series = []
    for title, by_direction in signals.items():
        strengths = by_direction[direction]
        values = [strength if strength > 0 else None for strength in strengths]
        series.append(Series(name=title, x=range(1, len(strengths) + 1), y=values))
    return Figure(
        name=f"c6-signal-{direction}",
        title=f"{direction.capitalize()} signal of {_model(budget)} before the first step",
        caption=(
            f"The {label}, in network order. He initialization assumes complete windows. On small "
            "maps (2 x 2 at the end for digits) more than half of a 3x3 window is padding, so the "
            "signal shrinks without batch norm."
        ),
        x_label="block",
        y_label=label,
        series=series,
        y_log=True,
    )
