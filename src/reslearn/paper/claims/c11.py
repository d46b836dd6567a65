"""C11: it is easier to push a residual to zero than to fit an identity through non-linear layers (Sec. 3.1, 4.2, Fig. 7).

Two pieces of evidence: small nets fitted to y = x, with shortcuts and without, and the responses of layers of trained nets. The latter
read the gamma that batch norm learned: it starts at 1 for all, so that short trainings tell less than long ones.
"""

import math
import statistics
from typing import TYPE_CHECKING

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Claim, Finding, Outcome, Runs, RunSpec
from reslearn.paper.subjects import interval_text, judged_subjects, paired, rests_on, unless_lost
from reslearn.report import Figure
from reslearn.report.responses import response_figures
from reslearn.study import Comparison

if TYPE_CHECKING:
    from reslearn.analysis import LayerResponse, Subject

_BLOCKS, _WIDTH, _STEPS, _BATCH, _NUM_BATCHES = 4, 32, 400, 128, 32
_LEARNING_RATES = (0.3, 0.1)
_CHOICE_SEED, _NUM_JUDGED = 100_000, 3
_TIMES = 2.0
_FLOOR = 1e-6  # losses below it count as equal: rounding, not fitting
_NUM_IMAGES = 512  # of the training images: 8,000 values a layer at the least

CLAIM = Claim(
    identifier="C11",
    text="It is easier to push a residual to zero than to fit an identity through non-linear layers",
    section="Sec. 3.1, 4.2, Fig. 7",
    rule=f"Fit: nets of {_BLOCKS} blocks of two layers, with batch norm, are fitted to y = x, with shortcuts and without, each at the "
    f"better of learning rates 0.3 and 0.1, chosen on another seed, over the first {_NUM_JUDGED} judged seeds. "
    "The fit speaks for the claim if the loss without shortcuts "
    f"over that with them, as a logarithm paired over seeds, has a 95 % interval above log {_TIMES:g}; against it if the "
    "interval ends below log 1, and for neither if a fit diverged. Responses: the mean over 3x3 layers of the standard deviation "
    "after batch norm (Fig. 7), plain minus residual at the greatest depth, paired over judged seeds. They speak for the claim if "
    "the 95 % interval is above 0, against it if below 0. Shown if both speak for it, not shown if one speaks against it, else undecided.",
)


def conditions(budget: Budget) -> list[RunSpec]:
    """The runs that choose learning rates."""
    return protocol.choice_conditions(budget)


def judged_conditions(evidence: Runs) -> list[RunSpec]:
    """Plain and residual nets at their learning rates."""
    return protocol.judged_conditions(evidence)


def judge(evidence: Runs) -> Finding:
    """Fit, then responses."""
    fitted, losses = _fits(evidence)
    deepest = max(evidence.budget.depths)
    subjects = {
        kind: judged_subjects(evidence, protocol.model_name(kind, deepest))
        for kind in protocol.BOTH
    }
    seeds = sorted(subjects["plain"].keys() & subjects["residual"].keys())
    found = {
        kind: {seed: _responses(subjects[kind][seed]) for seed in seeds} for kind in protocol.BOTH
    }
    means = {
        kind: [_mean(layers) for layers in by_seed.values()] for kind, by_seed in found.items()
    }
    compared = paired(means["plain"], means["residual"]) if seeds else None
    told = (
        f"responses at {deepest} layers: plain {statistics.mean(means['plain']):.2f}, residual {statistics.mean(means['residual']):.2f}, "
        f"difference {interval_text(compared)}"
        if compared is not None
        else f"no seed has finished runs of both kinds at {deepest} layers"
    )
    typical = {kind: _geometric(values) for kind, values in losses.items()}
    return Finding(
        claim=CLAIM,
        outcome=unless_lost(
            _outcome(fitted, compared),
            evidence,
            *(protocol.model_name(kind, deepest) for kind in protocol.BOTH),
        ),
        measured=f"y = x by {2 * _BLOCKS} layers: loss {typical['without']:.2g} without shortcuts, {typical['with']:.2g} with "
        f"(1: no better than the mean; n={fitted.n_a}); {told}",
        numbers={
            "fit_loss": losses,
            "fit_log_ratio": {
                "mean": fitted.difference,
                "low": fitted.interval_low,
                "high": fitted.interval_high,
            },
            "mean_response": means,
            "seeds": seeds,
        },
        figures=_figures(evidence),
        rests_on=rests_on([subjects[kind][seed] for kind in protocol.BOTH for seed in seeds]),
    )


def _outcome(fitted: Comparison, compared: Comparison | None) -> Outcome:
    # A fit that diverged was left out, which flatters the kind that it was of: then the fits speak for neither.
    fit = fitted.interval if not fitted.num_diverged else None
    responses = compared.interval if compared is not None else None
    if (fit is not None and fit.high < 0) or (responses is not None and responses.high < 0):
        return "not shown"
    speaks_for = (
        fit is not None
        and fit.low > math.log(_TIMES)
        and responses is not None
        and responses.low > 0
    )
    return "shown" if speaks_for else "undecided"


def _fits(evidence: Runs) -> tuple[Comparison, dict[str, list[float]]]:
    """log(loss without) - log(loss with shortcuts), and the losses, one a judged seed."""
    losses = {}
    for kind, with_shortcuts in (("without", False), ("with", True)):
        trials = {
            lr: _fit(evidence, with_shortcuts=with_shortcuts, lr=lr, seed=_CHOICE_SEED)
            for lr in _LEARNING_RATES
        }
        lr = min(trials, key=lambda rate: trials[rate])
        losses[kind] = [
            _fit(evidence, with_shortcuts=with_shortcuts, lr=lr, seed=seed)
            for seed in evidence.budget.judge_seeds[:_NUM_JUDGED]
        ]
    logarithms = {
        kind: [math.log(max(loss, _FLOOR)) for loss in values] for kind, values in losses.items()
    }
    return paired(logarithms["without"], logarithms["with"]), losses


def _fit(evidence: Runs, *, with_shortcuts: bool, lr: float, seed: int) -> float:
    """The loss on fresh inputs, in units of their variance; infinite where the fit diverged."""
    import torch
    from torch.nn import functional

    from reslearn.analysis import chain, identity_loss, inputs

    net = chain(num_blocks=_BLOCKS, width=_WIDTH, with_shortcuts=with_shortcuts, seed=seed)
    x = inputs(num_inputs=_NUM_BATCHES * _BATCH, width=_WIDTH, seed=seed)
    batches = [(part, part) for part in torch.split(x, _BATCH)]
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    try:
        evidence.fit(net, batches, functional.mse_loss, optimizer, steps=_STEPS)
    except ValueError:  # how `fit` says that the loss is no finite number any more
        return math.inf
    return identity_loss(net, inputs(num_inputs=1000, width=_WIDTH, seed=seed + 1_000_000))


def _geometric(losses: list[float]) -> float:
    return math.exp(statistics.mean(math.log(max(loss, _FLOOR)) for loss in losses))


def _responses(subject: "Subject") -> "list[LayerResponse]":
    from reslearn.analysis import responses

    return responses(subject.network(), subject.batches(subject.train.evenly_spaced(_NUM_IMAGES)))


def _mean(layers: "list[LayerResponse]") -> float:
    return statistics.mean(layer.standard_deviation for layer in layers)


def _figures(evidence: Runs) -> tuple[Figure, ...]:
    """Fig. 7: plain and residual at the middle and the greatest depth, ResNets deeper still; every judged seed that finished."""
    depths = sorted(evidence.budget.depths)
    shown = sorted({statistics.median_low(depths), depths[-1]})
    names = [protocol.model_name(kind, depth) for kind in protocol.BOTH for depth in shown]
    names += [
        protocol.model_name("residual", depth) for depth in evidence.budget.extra_residual_depths
    ]
    curves: dict[str, list[list[float]]] = {}
    for name in names:
        runs = [
            [layer.standard_deviation for layer in _responses(subject)]
            for subject in judged_subjects(evidence, name).values()
        ]
        if runs:
            curves[name] = runs
    return tuple(response_figures(curves)) if curves else ()
