"""Diagnose a network that does not train. About 20 seconds.

Expected answer: the signal vanishes, because the default initialization is too small for 24 layers.
"""

import torch
from torch import nn

from reslearn.diagnose import diagnose, make_problem


def build() -> nn.Module:
    """Return a new plain network of 24 hidden layers."""
    hidden = [layer for _ in range(24) for layer in (nn.Linear(32, 32), nn.ReLU())]
    return nn.Sequential(nn.Linear(2, 32), nn.ReLU(), *hidden, nn.Linear(32, 2))


generator = torch.Generator().manual_seed(0)
inputs = torch.rand(1024, 2, generator=generator) * 2 - 1
targets = (inputs.prod(dim=1) > 0).long()

diagnosis = diagnose(make_problem(build, (inputs, targets)), minutes=2, steps=40)
print(f"cause: {diagnosis.verdict.name}")
print(f"why:   {diagnosis.verdict.reason}")
