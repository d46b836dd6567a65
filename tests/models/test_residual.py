"""Eq. 1: a block is activation(F(x) + shortcut(x)). Checkpointing does not change the numbers."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.fx
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from reslearn.models import Residual, build, last_batch_norm


def small_block(
    shortcut: nn.Module | None,
    *,
    checkpoint_activations: bool = False,
    momentum: float | None = 0.1,
) -> Residual:
    torch.manual_seed(1)
    first, second = nn.BatchNorm2d(6, momentum=momentum), nn.BatchNorm2d(6, momentum=momentum)
    body = nn.Sequential(
        nn.Conv2d(6, 6, 3, padding=1),
        first,
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 6, 3, padding=1),
        second,
        nn.Dropout(0.5),
    )
    return Residual(
        body, shortcut, nn.ReLU(inplace=True), checkpoint_activations=checkpoint_activations
    )


def test_a_block_is_the_activation_of_the_sum() -> None:
    x = torch.randn(3, 5)
    body, shortcut = nn.Linear(5, 7), nn.Linear(5, 7)
    assert torch.equal(Residual(body, shortcut, nn.Tanh())(x), torch.tanh(body(x) + shortcut(x)))


def test_a_body_alone_is_the_block_of_the_paper() -> None:
    x = torch.randn(3, 5)
    body = nn.Linear(5, 5)
    block = Residual(body)
    assert torch.equal(block(x), torch.relu(body(x) + x))
    assert list(block.state_dict()) == ["body.weight", "body.bias"]
    assert block.shortcut is not Residual(body).shortcut


@pytest.mark.parametrize("shortcut", [nn.Identity, None])
def test_a_block_with_checkpointing_is_recorded_by_torch_fx(
    shortcut: type[nn.Module] | None,
) -> None:
    block = Residual(nn.Linear(5, 5), shortcut, checkpoint_activations=True)
    x = torch.randn(3, 5)
    assert torch.equal(torch.fx.symbolic_trace(block)(x), block(x))


def test_without_a_shortcut_a_block_is_plain() -> None:
    x = torch.randn(3, 5)
    body = nn.Linear(5, 7)
    assert torch.equal(Residual(body, None, nn.Tanh())(x), torch.tanh(body(x)))


def test_a_block_does_not_change_its_input() -> None:
    x = torch.randn(2, 6, 4, 4)
    before = x.clone()
    small_block(nn.Identity())(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("body", "shortcut"),
    [
        (nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 5)), nn.Identity()),
        (nn.Linear(5, 5), nn.ReLU(inplace=True)),
    ],
)
def test_an_in_place_change_of_the_input_is_refused(body: nn.Module, shortcut: nn.Module) -> None:
    block = Residual(body, shortcut, nn.Identity())
    with pytest.raises(ValueError, match="changes its input in place"):
        block(torch.randn(3, 5))


def test_in_place_modules_after_the_first_are_allowed() -> None:
    body = nn.Sequential(nn.Linear(5, 5), nn.ReLU(inplace=True))
    x = torch.randn(3, 5)
    assert torch.equal(
        Residual(body, nn.Identity(), nn.ReLU(inplace=True))(x), torch.relu(body(x) + x)
    )
    with torch.inference_mode():
        assert torch.equal(
            Residual(body, nn.Identity(), nn.ReLU(inplace=True))(x), torch.relu(body(x) + x)
        )


def test_an_addition_that_broadcasts_is_refused() -> None:
    block = Residual(nn.Linear(5, 1), nn.Identity(), nn.ReLU())
    with pytest.raises(ValueError, match=r"body returns \(3, 1\) and shortcut returns \(3, 5\)"):
        block(torch.randn(3, 5))


@settings(max_examples=20)
@given(
    body=st.sampled_from(["resnet8", "resnet50"]),
    training=st.booleans(),
    seed=st.integers(0, 2**16),
    size_px=st.integers(1, 9),
    scale=st.sampled_from([1e-20, 1.0, 1e6]),
)
def test_a_block_whose_last_batch_norm_is_zero_is_exactly_the_identity(
    body: str, training: bool, seed: int, size_px: int, scale: float
) -> None:
    torch.manual_seed(seed)
    block = identity_block(body).train(training)
    nn.init.zeros_(last_batch_norm(block).weight)
    nn.init.zeros_(last_batch_norm(block).bias)
    channels = next(block.body.children()).in_channels
    x = torch.randn(2, channels, size_px, size_px).mul(scale).relu()
    with torch.no_grad():
        y = block(x)
    assert torch.equal(y.view(torch.int32), x.view(torch.int32)), "the same bits"


BLOCKS: dict[str, Residual] = {}


def identity_block(name: str) -> Residual:
    if name not in BLOCKS:
        BLOCKS[name] = dict(build(name, num_classes=2).blocks())[
            "stage1.1" if name == "resnet50" else "stage1.0"
        ]
    return BLOCKS[name]


def loss_and_gradients(block: Residual, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(5)  # both passes must draw the same dropout mask
    x = x.clone().requires_grad_()
    loss = block(x).square().sum()
    loss.backward()
    return loss.detach(), [
        tensor.grad for tensor in (x, *block.parameters()) if tensor.grad is not None
    ]


@pytest.mark.parametrize(
    "shortcut",
    [nn.Identity, lambda: nn.BatchNorm2d(6), lambda: None],
    ids=["identity", "with statistics", "plain"],
)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_checkpointing_changes_neither_gradients_nor_statistics(
    shortcut: Callable[[], nn.Module | None], momentum: float | None
) -> None:
    plain_memory = small_block(shortcut(), momentum=momentum)
    checkpointed = copy.deepcopy(plain_memory)
    checkpointed.checkpoint_activations = True
    for _ in range(3):
        x = torch.randn(4, 6, 5, 5)
        expected, measured = (
            loss_and_gradients(plain_memory, x),
            loss_and_gradients(checkpointed, x),
        )
        assert torch.equal(expected[0], measured[0])
        assert all(torch.equal(a, b) for a, b in zip(expected[1], measured[1], strict=True))
    ours, theirs = checkpointed.state_dict(), plain_memory.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert ours["body.1.num_batches_tracked"] == 3


def test_checkpointing_saves_only_the_input() -> None:
    def saved_numbers(block: Residual) -> int:
        count = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal count
            count += 0 if isinstance(tensor, nn.Parameter) else tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            block(torch.randn(4, 6, 16, 16, requires_grad=True))
        return count

    assert saved_numbers(
        small_block(nn.Identity(), checkpoint_activations=True)
    ) * 4 < saved_numbers(small_block(nn.Identity()))


def test_checkpointing_is_off_in_evaluation() -> None:
    block = small_block(nn.Identity(), checkpoint_activations=True).eval()
    output = block(torch.randn(1, 6, 4, 4))
    assert "Checkpoint" not in type(output.grad_fn).__name__ and torch.equal(
        block.body[1].num_batches_tracked, torch.tensor(0)
    )
