"""The examples of docs/residual.md: `Residual` works around modules of any kind."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reslearn.models import Residual

DOCUMENT = Path(__file__).parents[2] / "docs" / "residual.md"
EXAMPLES = dict(
    re.findall(
        r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```$",
        DOCUMENT.read_text(),
        re.DOTALL | re.MULTILINE,
    )
)
INPUTS = {
    "A multilayer perceptron": (4, 64),
    "A one-dimensional convolutional network": (4, 1, 100),
    "A pre-norm transformer block": (4, 12, 64),
}


def run_example(title: str) -> nn.Module:
    values: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(compile(EXAMPLES[title], str(DOCUMENT), "exec"), values)
    net = values["net"]
    assert isinstance(net, nn.Module)
    return net


@pytest.mark.parametrize("title", INPUTS)
def test_an_example_has_at_most_ten_lines(title: str) -> None:
    assert sum(bool(line.strip()) for line in EXAMPLES[title].splitlines()) <= 10


@pytest.mark.parametrize("title", INPUTS)
def test_each_block_of_an_example_computes_the_equation(title: str) -> None:
    net = run_example(title)
    blocks = [module for module in net.modules() if isinstance(module, Residual)]
    assert blocks
    seen = []

    def check(block: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        assert isinstance(block, Residual) and block.shortcut is not None
        seen.append(
            torch.equal(output, block.activation(block.body(inputs[0]) + block.shortcut(inputs[0])))
        )

    for block in blocks:
        block.register_forward_hook(check)
    net(torch.randn(INPUTS[title]))
    assert seen == [True] * len(blocks)


@pytest.mark.parametrize("title", INPUTS)
def test_an_example_learns(title: str) -> None:
    net = run_example(title)
    x = torch.randn(INPUTS[title])
    target = torch.randn_like(net(x))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        loss = nn.functional.mse_loss(net(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_transformer_block_equals_the_block_of_pytorch() -> None:
    net = run_example("A pre-norm transformer block")
    theirs = nn.TransformerEncoderLayer(
        64, 4, 256, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    ours = net.state_dict()
    names = {
        "self_attn": "0.body.1",
        "norm1": "0.body.0",
        "norm2": "1.body.0",
        "linear1": "1.body.1",
        "linear2": "1.body.3",
    }
    theirs.load_state_dict(
        {
            key: ours[f"{names[key.split('.')[0]]}.{key.split('.', 1)[1]}"]
            for key in theirs.state_dict()
        }
    )
    x = torch.randn(2, 7, 64)
    torch.testing.assert_close(net(x), theirs(x))
