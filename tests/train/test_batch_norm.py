"""The batch norm for the compiler computes what torch's batch norm computes."""

import copy

import pytest
import torch
from torch import Tensor, nn

from reslearn.models import Residual
from reslearn.train.batch_norm import BatchNormInFloat32


def train_once(norm: nn.Module, x: Tensor, ours: bool) -> list[Tensor]:
    """Return output, gradients of x, weight and bias, and buffers after one training pass."""
    norm = copy.deepcopy(norm)
    x = x.clone().requires_grad_()
    output_weights = torch.linspace(-1, 2, x.numel()).view_as(x)
    if ours:
        with BatchNormInFloat32():
            y = norm(x)
    else:
        y = norm(x)
    gradients = torch.autograd.grad((y * output_weights.to(y.dtype)).sum(), [x, *norm.parameters()])
    return [y, *gradients, *norm.buffers()]


@pytest.fixture
def norm() -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(5, momentum=0.3, eps=1e-3)
    with torch.no_grad():
        for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert values is not None
            values.uniform_(0.5, 2)
    return norm


@pytest.mark.parametrize("shape", [(4, 5, 6, 7), (8, 5, 1, 1), (1, 5, 3, 3)])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_it_equals_torchs_batch_norm(
    norm: nn.BatchNorm2d, shape: tuple[int, ...], offset: float
) -> None:
    x = (torch.randn(shape) + offset).to(memory_format=torch.channels_last)
    for value, expected in zip(
        train_once(norm, x, ours=True), train_once(norm, x, ours=False), strict=True
    ):
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-3)
    assert train_once(norm, x, ours=True)[0].is_contiguous(memory_format=torch.channels_last)


def test_bf16_is_normalized_in_float32(norm: nn.BatchNorm2d) -> None:
    x = torch.randn(4, 5, 6, 6).bfloat16()
    values, exact = (
        train_once(norm, x, ours=True),
        train_once(norm.double(), x.double(), ours=False),
    )
    assert [value.dtype for value in values[:4]] == [
        torch.bfloat16,
        torch.bfloat16,
        torch.float32,
        torch.float32,
    ]
    for value, reference in zip(values, exact, strict=True):
        torch.testing.assert_close(value.double(), reference.double(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("kind", ["evaluation", "vector", "without parameters", "one value"])
def test_other_batch_norms_stay_torchs(
    norm: nn.BatchNorm2d, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "reslearn.train.batch_norm.batch_norm", lambda *_: pytest.fail("not for this")
    )
    with BatchNormInFloat32():
        if kind == "evaluation":
            norm.eval()(torch.randn(2, 5, 3, 3))
        elif kind == "vector":
            nn.BatchNorm1d(5)(torch.randn(4, 5))
        elif kind == "without parameters":
            nn.BatchNorm2d(5, affine=False)(torch.randn(2, 5, 3, 3))
        else:
            with pytest.raises(ValueError, match="more than 1 value"):
                norm(torch.randn(1, 5, 1, 1))


# The compiler imports parts of torch that torch itself deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
# "aot_eager" records both passes as "inductor" does, but generates and compiles no C++ for them.
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_network_with_checkpointing_trains_like_an_uncompiled_one(backend: str) -> None:
    body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
    net = Residual(body, nn.Identity(), nn.ReLU(), checkpoint_activations=True)
    x = torch.randn(4, 4, 6, 6)

    def loss(net: nn.Module) -> Tensor:
        with BatchNormInFloat32():
            return net(x).square().mean()

    compiled = copy.deepcopy(net)
    net(x).square().mean().backward()
    torch.compile(loss, backend=backend)(compiled).backward()
    for value, expected in zip(compiled.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(value.grad, expected.grad)
    for value, expected in zip(list(compiled.buffers())[:2], list(net.buffers())[:2], strict=True):
        torch.testing.assert_close(value, expected)
