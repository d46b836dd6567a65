"""Rivals of the diagnosis: rules of thumb that watch one training without changing it.

- Gradient ratio: gradients of the weights in the first third of layers over those in the last
  third. Glorot and Bengio (2010) compare gradients layer by layer.
- Dead units: 40 % or more of the units behind a ReLU are always zero (Stanford CS231n).
- Update ratio: a step should move the weights by about a thousandth of their norm (CS231n:
  "somewhere around 1e-3"). We read this as a factor of ten in both directions.

Each rule raises an alarm or none.
"""

import math
import statistics

import torch
from torch import nn

from reslearn.diagnose import Problem
from reslearn.diagnose.signals import measure_signals
from reslearn.diagnose.trial import batches
from reslearn.train import NonFiniteLossError, fit

GRADIENT_RATIO, DEAD_SHARE, UPDATE_RATIO = 1e3, 0.4, (1e-4, 1e-2)
NAMES = ("gradient ratio", "dead units", "update ratio")


def alarms(problem: Problem, *, steps: int, seed: int = 0) -> dict[str, bool]:
    """Train once at the given learning rate and return the alarm of each rival.

    Gradients and dead units are measured at the start and at the end, updates after half of the
    steps.
    """
    net = problem.net(seed)
    start = measure_signals(net, problem)
    optimizer = problem.make_optimizer(net.parameters(), problem.lr)
    half = steps // 2
    try:
        _train(net, problem, optimizer, seed, start_step=0, steps=half)
        before = [weight.detach().clone() for weight in _weights(net)]
        _train(net, problem, optimizer, seed, start_step=half, steps=1)
        update_ratio = _median_update(before, _weights(net))
        _train(net, problem, optimizer, seed, start_step=half + 1, steps=steps - half - 1)
    except NonFiniteLossError:  # weights that are not finite alarm every rival
        return dict.fromkeys(NAMES, True)
    end = measure_signals(net, problem)
    ratios = [signals.gradient_ratio for signals in (start, end)]
    dead_shares = [signals.dead_share for signals in (start, end)]
    low, high = UPDATE_RATIO
    return {
        "gradient ratio": any(_is_extreme(ratio) for ratio in ratios if ratio is not None),
        "dead units": any(share >= DEAD_SHARE for share in dead_shares if share is not None),
        "update ratio": not low < update_ratio < high,
    }


def _is_extreme(ratio: float) -> bool:
    return not (math.isfinite(ratio) and 1 / GRADIENT_RATIO < ratio < GRADIENT_RATIO)


def _median_update(before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    """Return the median over weights of the norm of the change, divided by the norm."""
    ratios = []
    for old, weight in zip(before, after, strict=True):
        change = (weight.detach() - old).norm()
        ratios.append(float(change / old.norm().clamp_min(1e-12)))
    return statistics.median(ratios)


def _weights(net: nn.Module) -> list[torch.Tensor]:
    return [parameter for parameter in net.parameters() if parameter.ndim > 1]


def _train(
    net: nn.Module,
    problem: Problem,
    optimizer: torch.optim.Optimizer,
    seed: int,
    *,
    start_step: int,
    steps: int,
) -> None:
    fit(
        net,
        batches(problem, seed, start_step),
        problem.loss,
        optimizer,
        steps=steps,
        read_every_steps=max(1, steps),
    )
