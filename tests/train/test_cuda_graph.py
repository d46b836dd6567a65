"""Recording a step changes nothing. test_gpu.py shows on a GPU that replaying it trains alike."""

import copy

import pytest
import torch
from torch import nn

from reslearn.models import build
from reslearn.recipes import Optimizer
from reslearn.train.cuda_graph import learning_rates_on_device, preserved
from reslearn.train.optimizer import build_optimizer
from reslearn.train.step import make_step

OPTIMIZERS = {
    "sgd": Optimizer(),
    "nesterov": Optimizer(nesterov=True, decay="weights"),
    "muon": Optimizer(name="muon", filter_lr=0.03, nesterov=True, decay="weights"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("steps_before", [0, 2])
def test_preserved_steps_change_no_bits(name: str, steps_before: int) -> None:
    """The steps that follow are also unchanged, with or without optimizer state."""
    torch.manual_seed(0)
    net = build("resnet8", num_classes=10).train()
    twin = copy.deepcopy(net)
    batches = [(torch.randn(6, 3, 8, 8), torch.randint(0, 10, (6,))) for _ in range(5)]
    for model, warms_up in ((net, True), (twin, False)):
        optimizer = build_optimizer(model, OPTIMIZERS[name])
        step = make_step(
            model,
            nn.CrossEntropyLoss(),
            optimizer,
        )
        for x, y in batches[:steps_before]:
            step(x, y)
        if warms_up:
            with preserved(model, optimizer):
                step(*batches[3])
                step(*batches[4])
        for x, y in batches[steps_before:3]:
            step(x, y)
    for value, expected in zip(net.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(value, expected)


def test_learning_rates_are_tensors_during_recording_and_numbers_afterwards() -> None:
    """A step by a rate on the device equals a step by the number, up to float32."""
    nets = [nn.Linear(3, 2), nn.Linear(3, 2)]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [
        torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, fused=True) for net in nets
    ]
    x = torch.randn(4, 3)
    for net, optimizer in zip(nets, optimizers, strict=True):
        net(x).square().sum().backward()
        if net is nets[0]:
            optimizer.step()
    with learning_rates_on_device(optimizers[1], [torch.tensor(0.1)]):
        optimizers[1].step()
    assert [group["lr"] for group in optimizers[1].param_groups] == [0.1]
    for value, expected in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(value, expected)
