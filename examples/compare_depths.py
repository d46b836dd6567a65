"""Compare depths: does a deeper network train worse, and do shortcuts help? A few seconds."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import reslearn
from reslearn.study import degradation_verdict, number_text, summary

DEPTHS, SEEDS = (4, 16), (0, 1, 2)

torch.manual_seed(100)
inputs = torch.rand(1024, 2) * 2 - 1
targets = (inputs.prod(dim=1) > 0).long()
batches = list(zip(inputs.split(128), targets.split(128), strict=True))


def plain(depth: int) -> nn.Module:
    hidden = [layer for _ in range(depth) for layer in (nn.Linear(32, 32), nn.ReLU())]
    return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), *hidden, nn.Linear(32, 2))


def residual(depth: int) -> nn.Module:
    return reslearn.add_shortcuts(plain(depth), inputs[:8]).network


def training_error_pct(build: Callable[[int], nn.Module], depth: int, seed: int) -> float:
    torch.manual_seed(seed)
    network = build(depth)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    reslearn.fit(network, batches, cross_entropy, optimizer, steps=150)
    with torch.no_grad():
        return 100 * float((network(inputs).argmax(dim=1) != targets).float().mean())


for build in (plain, residual):
    rows = [(d, seed, training_error_pct(build, d, seed)) for d in DEPTHS for seed in SEEDS]
    for depth in DEPTHS:
        errors = [error for row_depth, _, error in rows if row_depth == depth]
        mean = summary(errors)
        text = number_text(mean.mean, digits=1, unit="%", interval=mean.interval)
        print(f"{build.__name__:8s} {depth:3d} hidden layers: training error {text}")
    verdict = degradation_verdict(rows, margin_pct=1.0)
    print(f"Does {build.__name__} degrade with depth? {verdict.answer}: {verdict.reason}")
