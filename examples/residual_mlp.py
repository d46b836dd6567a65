"""Make a deep multilayer perceptron residual and compare both forms. A few seconds."""

import copy

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import reslearn

torch.manual_seed(0)
inputs = torch.rand(2048, 2) * 2 - 1
targets = (inputs.prod(dim=1) > 0).long()  # exclusive or: which quadrants the points are in
batches = list(zip(inputs.split(128), targets.split(128), strict=True))

hidden = [layer for _ in range(24) for layer in (nn.Linear(32, 32), nn.ReLU())]
plain = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), *hidden, nn.Linear(32, 2))
# The same layers with an identity shortcut around every two of them. Parameters keep their names.
residual = reslearn.add_shortcuts(copy.deepcopy(plain), inputs[:8]).network

for name, network in {"plain": plain, "residual": residual}.items():
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    reslearn.fit(network, batches, cross_entropy, optimizer, steps=200)
    network.eval()
    with torch.no_grad():
        error = (network(inputs).argmax(dim=1) != targets).float().mean()
    size = sum(parameter.numel() for parameter in network.parameters())
    print(f"{name:8s} {size:6d} parameters, error {100 * error:.1f} %")
