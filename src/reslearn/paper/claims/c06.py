"""C6: normalized initialization and normalization layers let nets of tens of layers start to converge (Sec. 1).

2 x 2: weights N(0, 0.01) or He, with batch norm or without; a plain net, for its shortcuts would carry the signal. A few steps are enough:
the question is whether it starts.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reslearn.paper.claim import Budget, Claim, Finding, Outcome, Runs, RunSpec
from reslearn.report import Figure, Series
from reslearn.report.curves import curve, interval_note, seeds_series
from reslearn.runs import RunFolder

if TYPE_CHECKING:
    from reslearn.analysis import Subject

_LEARNING_RATES = (0.1, 0.01)  # Paper: 0.1, and 0.01 to warm up what is hard to start (Sec. 4.2)
_STARTED = 0.9
_STEPS = 120
_NUM_IMAGES = 256

CLAIM = Claim(
    identifier="C6",
    text="Normalized initialization and normalization layers let nets of tens of layers start to converge",
    section="Sec. 1",
    rule=f"A plain net of 20 layers (56 in the full budget) is trained for {_STEPS} steps from each of four starts: weights N(0, "
    "0.01) or He, with batch norm or without, at learning rates 0.1 and 0.01. A start converges on a seed if at one of the two "
    f"rates the training loss at the end, batch norm statistics recomputed, is below {_STARTED:g} times that of guessing, "
    "ln(number of classes); a run that diverged does not. Shown if He with batch norm converges on every seed and N(0, 0.01) "
    "without on none. Not shown if He with batch norm converges on no seed, or N(0, 0.01) without batch norm on every one. "
    "Undecided otherwise. The two mixed starts tell which of the two is needed and decide nothing.",
)


@dataclass(frozen=True, kw_only=True)
class _Start:
    """One cell of the 2 x 2."""

    title: str
    init: str
    normalize: bool

    @property
    def switches(self) -> dict[str, Any]:
        return {"init": self.init, "normalize": self.normalize}


_MODERN = _Start(title="He, batch norm", init="he_fan_out", normalize=True)
_OLD = _Start(title="N(0, 0.01), no batch norm", init="normal_0.01", normalize=False)
_STARTS = (
    _MODERN,
    _Start(title="N(0, 0.01), batch norm", init="normal_0.01", normalize=True),
    _Start(title="He, no batch norm", init="he_fan_out", normalize=False),
    _OLD,
)


def conditions(budget: Budget) -> list[RunSpec]:
    """The four starts at both learning rates."""
    return [
        _condition(budget, start, lr, seed)
        for start in _STARTS
        for lr in _LEARNING_RATES
        for seed in _seeds(budget)
    ]


def judge(evidence: Runs) -> Finding:
    """Who starts; and the signals of the first step."""
    from reslearn.analysis import Subject

    budget = evidence.budget
    runs = {
        start.title: {
            (lr, seed): evidence.runs.get(_condition(budget, start, lr, seed))
            for lr in _LEARNING_RATES
            for seed in _seeds(budget)
        }
        for start in _STARTS
    }
    finished = [run for cell in runs.values() for run in cell.values() if run is not None]
    if not finished:
        return Finding(claim=CLAIM, outcome="undecided", measured="no run came to its end")
    subject = Subject.open(finished[0], data_dir=evidence.data_dir)
    guessing = math.log(subject.network().num_classes)
    losses = {title: {key: _loss(run) for key, run in cell.items()} for title, cell in runs.items()}
    best = {
        title: {seed: min(cell[lr, seed] for lr in _LEARNING_RATES) for seed in _seeds(budget)}
        for title, cell in losses.items()
    }
    started = {
        title: [loss < _STARTED * guessing for loss in cell.values()]
        for title, cell in best.items()
    }
    signals = {start.title: _signals(subject, start) for start in _STARTS}
    means = {title: sum(cell.values()) / len(cell) for title, cell in best.items()}
    told = "; ".join(
        f"{title}: {means[title]:.2f}{'' if any(started[title]) else ' (does not start)'}"
        for title in means
    )
    return Finding(
        claim=CLAIM,
        outcome=_outcome(started[_MODERN.title], started[_OLD.title]),
        measured=f"{_model(budget)}, training loss after {_STEPS} steps, the better of lr 0.1 and 0.01 (guessing {guessing:.2f}): {told}",
        numbers={
            "guessing_loss": guessing,
            "loss": {
                title: {f"lr {lr:g}, seed {seed}": loss for (lr, seed), loss in cell.items()}
                for title, cell in losses.items()
            },
            "signals_at_step_0": signals,
        },
        figures=(
            _curves(budget, runs),
            _signal_figure(budget, signals, "forward"),
            _signal_figure(budget, signals, "backward"),
        ),
        rests_on=tuple(run.path.name for run in finished),
    )


def _model(budget: Budget) -> str:
    return "plain56" if budget.name == "full" else "plain20"


def _seeds(budget: Budget) -> tuple[int, ...]:
    """What is at stake is yes or no by orders of magnitude, so that two seeds do where minutes count."""
    return budget.judge_seeds[:2] if budget.name in ("demo", "smoke") else budget.judge_seeds


def _condition(budget: Budget, start: _Start, lr: float, seed: int) -> RunSpec:
    overrides = (
        "schedule.kind=constant",
        f'schedule.duration="{_STEPS} steps"',
        f"optimizer.lr={lr:g}",
        f"model.init={start.init}",
        f"model.normalize={str(start.normalize).lower()}",
        "evaluation.snapshots=[]",
        "train.read_every_steps=10",
    )
    return RunSpec(
        model=_model(budget), seed=seed, overrides=overrides, why="whether it starts to converge"
    )


def _loss(run: RunFolder | None) -> float:
    """Training loss at the end; infinite where the run diverged."""
    if run is None:
        return math.inf
    recomputed = run.result["train_recomputed_loss"]
    return float(run.result["train_loss"] if recomputed is None else recomputed)


def _outcome(modern: list[bool], old: list[bool]) -> Outcome:
    if all(modern) and not any(old):
        return "shown"
    return "not shown" if not any(modern) or all(old) else "undecided"


def _signals(subject: "Subject", start: _Start) -> dict[str, list[float]]:
    """Root mean square of each block's output, and norm of the gradient by it, before the first step."""
    from reslearn.analysis import forward_signal, gradients

    net, (images, labels) = (
        subject.untrained(**start.switches).double(),
        subject.training_batch(_NUM_IMAGES),
    )
    x = images.double()  # what vanishes over tens of layers is soon no float32 any more
    return {
        "forward": [strength for name, strength in forward_signal(net, x) if name != "stem"],
        "backward": [block.norm for block in gradients(net, x, labels).signal],
    }


def _curves(budget: Budget, runs: dict[str, dict[tuple[float, int], RunFolder | None]]) -> Figure:
    series: list[Series] = []
    for title, cell in runs.items():
        for rate in _LEARNING_RATES:
            curves = {
                seed: curve(run.metrics(), "train", "loss")
                for (lr, seed), run in cell.items()
                if lr == rate and run is not None
            }
            series += seeds_series(
                f"{title}, lr {rate:g}", curves, group=title, dashed=rate != _LEARNING_RATES[0]
            )
    return Figure(
        name="c6-start",
        title=f"Does {_model(budget)} start to converge?",
        caption=f"Training loss from four starts. A run that diverged is missing.{interval_note(len(_seeds(budget)))}",
        x_label="step",
        y_label="training loss",
        series=series,
        styles={"line": "lr 0.1", "dashed": "lr 0.01"},
    )


def _signal_figure(budget: Budget, signals: dict[str, dict[str, list[float]]], way: str) -> Figure:
    label = {
        "forward": "rms of the block's output",
        "backward": "norm of the gradient by the block's output",
    }[way]
    return Figure(
        name=f"c6-signal-{way}",
        title=f"{way.capitalize()} signal of {_model(budget)} before the first step",
        caption=f"{label[0].upper()}{label[1:]}, in network order. He initialization reckons with whole windows: on small maps, 2 x 2 at "
        "the end for digits, more than half of a 3x3 window is padding, and the signal shrinks without batch norm.",
        x_label="block",
        y_label=label,
        series=[
            Series(
                name=title,
                x=range(1, len(found[way]) + 1),
                y=[value if value > 0 else None for value in found[way]],
            )
            for title, found in signals.items()
        ],
        y_log=True,
    )
