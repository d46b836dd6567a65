"""C11: it is easier to push a residual to zero than to fit an identity through non-linear layers.

Paper: Sec. 3.1, 4.2, Fig. 7.
There are two pieces of evidence: small networks fitted to y = x, with and without shortcuts, and
the responses of layers of trained networks. The responses reflect the learned gamma of batch norm.
Gamma starts at 1 in every layer, so short trainings say less than long ones.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from reslearn.paper.experiment import BOTH, Experiment, Result, model_name
from reslearn.paper.rules import all_of, verdict_on_claim
from reslearn.paper.text import comparison_text
from reslearn.paper.trained import Trained
from reslearn.report import Figure
from reslearn.report.content import VerdictOutcome
from reslearn.report.responses import response_figures
from reslearn.study import Comparison, Interval, compare, margin_test

if TYPE_CHECKING:
    from reslearn.analysis import LayerResponse, Subject

_BLOCKS, _WIDTH, _STEPS, _BATCH, _NUM_BATCHES = 4, 32, 400, 128, 32
_LEARNING_RATES = (0.3, 0.1)
_CHOICE_SEED, _NUM_JUDGED = 100_000, 3
_FACTOR = 2.0
_FLOOR = 1e-6  # smaller losses count as equal, because they differ by rounding only
_NUM_IMAGES = 512  # training images, which give at least 8,000 values per layer

EXPERIMENT = Experiment(
    name="C11",
    text=(
        "It is easier to push a residual to zero than to fit an identity through non-linear layers"
    ),
    section="Sec. 3.1, 4.2, Fig. 7",
    rule=(
        f"Fit: networks of {_BLOCKS} blocks of two layers with batch norm are fitted to y = x, "
        f"with and without shortcuts, over the first {_NUM_JUDGED} judged seeds. Each uses the "
        "better of the learning rates 0.3 and 0.1, chosen on another seed. The measure is the "
        "logarithm of the loss without shortcuts over the loss with them, paired by seed. It "
        f"supports the claim if its 95 % interval lies above log {_FACTOR:g}, and contradicts the "
        "claim if the interval ends below log 1. It does neither if a fit diverged. Responses: "
        "the mean over 3x3 layers of the standard deviation after batch norm (Fig. 7), plain "
        "minus residual at the greatest depth, paired by judged seed. They support the claim if "
        "the 95 % interval lies above 0, and contradict it if the interval lies below 0. Shown: "
        "both support the claim. Not shown: one contradicts it. Undecided: everything else."
    ),
    kinds=BOTH,
)


def measure(trained: Trained) -> Result:
    """Fit the small networks, and compare the responses of the deepest networks."""
    fit_losses = {
        "without": _fit_losses(trained, with_shortcuts=False),
        "with": _fit_losses(trained, with_shortcuts=True),
    }
    log_losses = {kind: _logarithms(losses) for kind, losses in fit_losses.items()}
    fits = compare(log_losses["without"], log_losses["with"], paired=True)
    depth = max(trained.budget.depths)
    subjects = {kind: trained.subjects(model_name(kind, depth)) for kind in BOTH}
    seeds = sorted(subjects["plain"].keys() & subjects["residual"].keys())
    means = {kind: _mean_responses([subjects[kind][seed] for seed in seeds]) for kind in BOTH}
    responses = compare(means["plain"], means["residual"], paired=True) if seeds else None
    outcome = decide(fits, responses)
    typical = {kind: math.exp(statistics.mean(logs)) for kind, logs in log_losses.items()}
    is_lost = trained.is_lost(*(model_name(kind, depth) for kind in BOTH))
    return Result(
        outcome="undecided" if is_lost else outcome,
        measured=f"y = x by {2 * _BLOCKS} layers: loss {typical['without']:.2g} without shortcuts, "
        f"{typical['with']:.2g} with (1: no better than the mean; n={fits.n_a}); "
        f"{_response_text(means['plain'], means['residual'], responses, depth)}",
        numbers={
            "fit_loss": fit_losses,
            "fit_log_ratio": {
                "mean": fits.difference,
                "low": fits.interval_low,
                "high": fits.interval_high,
            },
            "mean_response": means,
            "seeds": seeds,
        },
        figures=_figures(trained),
        rests_on=tuple(subjects[kind][seed].folder.path.name for kind in BOTH for seed in seeds),
    )


def decide(fits: Comparison, responses: Comparison | None) -> VerdictOutcome:
    """Apply the rule to the log ratio of the fits and the difference of the responses, if any."""
    # A diverged fit is left out of the mean, which is in favor of its kind. The fits then support
    # neither side.
    fit_interval: Interval | None = None if fits.num_diverged else fits.interval
    response_interval = None if responses is None else responses.interval
    answer = all_of(
        margin_test(fit_interval, math.log(_FACTOR), no_margin=0.0),
        margin_test(response_interval, 0.0),
    )
    return verdict_on_claim(answer)


def _fit_losses(trained: Trained, *, with_shortcuts: bool) -> list[float]:
    """Choose a learning rate, and return the loss of the fit on each judged seed."""
    choice_losses = {
        rate: _fit(trained, with_shortcuts=with_shortcuts, lr=rate, seed=_CHOICE_SEED)
        for rate in _LEARNING_RATES
    }
    best_rate = min(choice_losses, key=lambda rate: choice_losses[rate])
    return [
        _fit(trained, with_shortcuts=with_shortcuts, lr=best_rate, seed=seed)
        for seed in trained.seeds[:_NUM_JUDGED]
    ]


def _fit(trained: Trained, *, with_shortcuts: bool, lr: float, seed: int) -> float:
    """Return the loss on new inputs, in units of their variance; infinite if the fit diverged."""
    import torch
    from torch.nn import functional

    from reslearn.analysis import chain, identity_loss, inputs

    network = chain(num_blocks=_BLOCKS, width=_WIDTH, with_shortcuts=with_shortcuts, seed=seed)
    x = inputs(num_inputs=_NUM_BATCHES * _BATCH, width=_WIDTH, seed=seed)
    batches = [(part, part) for part in torch.split(x, _BATCH)]
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9)
    try:
        trained.fit(network, batches, functional.mse_loss, optimizer, steps=_STEPS)
    except ValueError:  # `fit` raises it when the loss is not finite
        return math.inf
    return identity_loss(network, inputs(num_inputs=1000, width=_WIDTH, seed=seed + 1_000_000))


def _logarithms(losses: list[float]) -> list[float]:
    return [math.log(max(loss, _FLOOR)) for loss in losses]


def _responses(subject: Subject) -> list[LayerResponse]:
    from reslearn.analysis import responses

    return responses(subject.network(), subject.batches(subject.train.evenly_spaced(_NUM_IMAGES)))


def _mean_responses(subjects: list[Subject]) -> list[float]:
    means = []
    for subject in subjects:
        layers = _responses(subject)
        means.append(statistics.mean(layer.standard_deviation for layer in layers))
    return means


def _response_text(
    plain: list[float], residual: list[float], responses: Comparison | None, depth: int
) -> str:
    if responses is None:
        return f"no seed has finished runs of both kinds at {depth} layers"
    return (
        f"responses at {depth} layers: plain {statistics.mean(plain):.2f}, "
        f"residual {statistics.mean(residual):.2f}, difference {comparison_text(responses)}"
    )


def _figures(trained: Trained) -> tuple[Figure, ...]:
    """Draw Fig. 7: both families at the middle and greatest depth, and deeper ResNets."""
    depths = sorted(trained.budget.depths)
    shown_depths = sorted({statistics.median_low(depths), depths[-1]})
    models = [model_name("plain", depth) for depth in shown_depths]
    models += [model_name("residual", depth) for depth in shown_depths]
    models += [model_name("residual", depth) for depth in trained.budget.extra_residual_depths]
    curves: dict[str, list[list[float]]] = {}
    for model in models:
        for subject in trained.subjects(model).values():
            layers = _responses(subject)
            run = [layer.standard_deviation for layer in layers]
            curves.setdefault(model, []).append(run)
    return tuple(response_figures(curves)) if curves else ()
