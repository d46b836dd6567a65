"""What watches a training without intervening, by published rules of thumb: each gives an alarm or none.

gradient ratio: the weights' gradients of the first third of layers over those of the last (Glorot and Bengio 2010 compare them layer by
layer). dead units: 40 % or more of the units behind a ReLU (Stanford CS231n). update ratio: a step moves the weights by about a thousandth
of their norm (CS231n: "somewhere around 1e-3"), which we read as a factor of ten either way.
"""

import math
import statistics

import torch
from torch import nn

from reslearn.diagnose import Problem
from reslearn.diagnose.trial import batches, signals
from reslearn.train import NonFiniteLossError, fit

GRADIENT_RATIO, DEAD_SHARE, UPDATE_RATIO = 1e3, 0.4, (1e-4, 1e-2)
NAMES = ("gradient ratio", "dead units", "update ratio")


def alarms(problem: Problem, *, steps: int, seed: int = 0) -> dict[str, bool]:
    """From one training at the learning rate given: at its start, after half of it and, for dead units, at its end."""
    net = problem.net(seed)
    start = signals(net, problem)
    optimizer = problem.make_optimizer(net.parameters(), problem.lr)
    half = steps // 2
    try:
        _train(net, problem, optimizer, seed, start=0, steps=half)
        before = [weight.detach().clone() for weight in _weights(net)]
        _train(net, problem, optimizer, seed, start=half, steps=1)
        moved = statistics.median(
            float((weight.detach() - old).norm() / old.norm().clamp_min(1e-12))
            for weight, old in zip(_weights(net), before, strict=True)
        )
        _train(net, problem, optimizer, seed, start=half + 1, steps=steps - half - 1)
    except NonFiniteLossError:  # the weights are not finite either, which each of them would see
        return dict.fromkeys(NAMES, True)
    end = signals(net, problem)
    ratios = [one.gradient_ratio for one in (start, end) if one.gradient_ratio is not None]
    dead = [one.dead_share for one in (start, end) if one.dead_share is not None]
    return {
        "gradient ratio": any(
            not math.isfinite(ratio) or not 1 / GRADIENT_RATIO < ratio < GRADIENT_RATIO
            for ratio in ratios
        ),
        "dead units": any(share >= DEAD_SHARE for share in dead),
        "update ratio": not UPDATE_RATIO[0] < moved < UPDATE_RATIO[1],
    }


def _weights(net: nn.Module) -> list[torch.Tensor]:
    return [parameter for parameter in net.parameters() if parameter.ndim > 1]


def _train(
    net: nn.Module,
    problem: Problem,
    optimizer: torch.optim.Optimizer,
    seed: int,
    *,
    start: int,
    steps: int,
) -> None:
    for _ in fit(
        net,
        batches(problem, seed, start),
        problem.loss,
        optimizer,
        steps=steps,
        read_every_steps=max(1, steps),
    ):
        pass
