"""Surgery on any network: blocks, removed blocks, added shortcuts, and identity layers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reslearn.models import (
    SurgeryError,
    add_shortcuts,
    blocks,
    build,
    construct_from,
    remove_blocks,
    trace,
)
from reslearn.models.surgery import PaddedShortcut


def conv(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


def mlp(depth: int = 6, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(5, 8), activation()]
    for _ in range(depth):
        layers += [nn.Linear(8, 8), activation()]
    return nn.Sequential(*layers, nn.Linear(8, 3))


def vgg() -> nn.Module:
    features = nn.Sequential(
        *conv(3, 8),
        *conv(8, 8),
        *conv(8, 8),
        nn.MaxPool2d(2),
        *conv(8, 16),
        *conv(16, 16),
        *conv(16, 16),
    )
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))


def strided() -> nn.Module:
    return nn.Sequential(
        *conv(3, 8),
        *conv(8, 16, 2),
        *conv(16, 16),
        *conv(16, 16),
        *conv(16, 16),
        nn.Flatten(),
        nn.Linear(1024, 3),
    )


def signal() -> nn.Module:
    layers: list[nn.Module] = []
    for width in (2, 8, 8, 8, 8):
        layers += [nn.Conv1d(width, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3))


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Transformer(nn.Module):
    """A transformer without shortcuts: each layer has pre-norm attention and two linear maps."""

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 8)
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [
                nn.LayerNorm(8),
                Attention(8),
                nn.LayerNorm(8),
                nn.Linear(8, 16),
                nn.GELU(),
                nn.Linear(16, 8),
            ]
        self.layers = nn.Sequential(*parts)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(x)).mean(1))


class Functional(nn.Module):
    """A network with functions in forward, some in place, and a shape that comes from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.fourth = (
            nn.Linear(6, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 6),
            nn.Linear(6, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        x = functional.relu(self.first(x), inplace=True)
        x = functional.dropout(x, 0.5, self.training)
        x = functional.relu(self.second(x))
        x = functional.relu(self.third(x))
        return self.fourth(x.view(batch, -1))


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (
            nn.Conv2d(8, 4, 1),
            nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.left(x), self.right(x)], 1)


def branching() -> nn.Module:
    return nn.Sequential(
        *conv(3, 8),
        Inception(),
        nn.ReLU(),
        Inception(),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 256, 3),
    )


IMAGES, VECTORS = torch.randn(4, 3, 16, 16), torch.randn(4, 5)
NETS: dict[str, tuple[Callable[[], nn.Module], Tensor, list[str]]] = {
    "mlp": (mlp, VECTORS, ["2", "6", "10"]),
    "tanh": (lambda: mlp(activation=nn.Tanh), VECTORS, ["2", "6", "10"]),
    "odd": (lambda: mlp(5), VECTORS, ["2", "6"]),
    "vgg": (vgg, IMAGES, ["0.3", "0.10"]),
    "strided": (strided, IMAGES, ["3", "9"]),
    "signal": (signal, torch.randn(4, 2, 20), ["3", "9"]),
    "transformer": (
        Transformer,
        torch.randn(4, 7, 4),
        ["layers.0", "layers.2", "layers.6", "layers.8"],
    ),
    "functional": (Functional, torch.randn(4, 6), ["second"]),
    "branching": (branching, IMAGES, ["3.left", "5.left"]),
    "plain20": (
        lambda: build("plain20", num_classes=3),
        IMAGES,
        [f"stage{s}.{b}.body.conv1" for s in (1, 2, 3) for b in range(3)],
    ),
}


@pytest.fixture(params=NETS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, list[str]]:
    torch.manual_seed(0)
    make, example, names = NETS[request.param]
    return make(), example, names


def test_blocks_are_found_without_the_first_and_last_layer(
    case: tuple[nn.Module, Tensor, list[str]],
) -> None:
    net, example, names = case
    block_names = [block.name for block in blocks(trace(net, example))]
    assert block_names == names


def test_tracing_changes_neither_function_nor_network(
    case: tuple[nn.Module, Tensor, list[str]],
) -> None:
    net, example, _ = case
    before = {key: value.clone() for key, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    traced = trace(net, example).graph_module
    assert torch.equal(traced.eval()(example), net.eval()(example))
    net.train()
    assert modes == [module.training for module in net.modules()]
    assert all(torch.equal(net.state_dict()[key], value) for key, value in before.items())


def test_the_residual_counterpart_has_the_same_state_dict(
    case: tuple[nn.Module, Tensor, list[str]],
) -> None:
    net, example, _ = case
    counterpart = add_shortcuts(net, example)
    theirs, ours = net.state_dict(), counterpart.network.state_dict()
    assert list(theirs) == list(ours)
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)
    assert counterpart.changed
    output = counterpart.network.train()(example)
    assert output.shape == net(example).shape and not torch.equal(output, net(example))
    output.square().mean().backward()
    assert all(parameter.grad is not None for parameter in counterpart.network.parameters())


def test_a_block_with_f_at_zero_is_the_activation_of_its_input() -> None:
    net = mlp(2)
    counterpart = add_shortcuts(net, VECTORS).network
    with torch.no_grad():
        for name in ("2", "4"):
            counterpart.get_submodule(name).weight.zero_()
            counterpart.get_submodule(name).bias.zero_()
    stem = net[:2](VECTORS)
    assert torch.equal(counterpart(VECTORS), net[6](torch.relu(stem)))


def test_the_residual_counterpart_of_plain20_is_resnet20() -> None:
    torch.manual_seed(0)
    plain, residual = build("plain20", num_classes=10), build("resnet20", num_classes=10)
    residual.load_state_dict(plain.state_dict())
    counterpart = add_shortcuts(plain, torch.randn(4, 3, 32, 32)).network
    x = torch.randn(6, 3, 32, 32)
    for mode in (True, False):
        assert torch.allclose(counterpart.train(mode)(x), residual.train(mode)(x), atol=1e-5)


def test_removed_blocks_are_gone_and_other_weights_stay() -> None:
    net = mlp(6)
    shallow = remove_blocks(trace(net, VECTORS), ["6", "2"]).network
    assert list(shallow.state_dict()) == [
        key for key in net.state_dict() if key.split(".")[0] not in ("2", "4", "6", "8")
    ]
    assert torch.equal(shallow(VECTORS), net[10:](net[:2](VECTORS)))
    shallow(VECTORS).sum().backward()


@pytest.mark.parametrize("name", ["mlp", "vgg", "signal", "plain20", "functional"])
def test_the_constructed_solution_is_the_shallow_function(name: str) -> None:
    torch.manual_seed(0)
    make, example, _ = NETS[name]
    net = make()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    traced = trace(net, example)
    removed = [block.name for block in blocks(traced) if block.keeps_shape]
    shallow = remove_blocks(traced, removed).network
    construction = construct_from(traced, shallow, removed, example)
    assert construction.is_unchanged and construction.scale > 0
    assert list(construction.network.state_dict()) == list(net.state_dict())


def test_the_difference_shows_an_activation_that_is_no_identity() -> None:
    traced = trace(mlp(activation=nn.Tanh), VECTORS)
    shallow = remove_blocks(traced, ["2"]).network
    assert not construct_from(traced, shallow, ["2"], VECTORS).is_unchanged


def test_a_residual_network_gets_no_second_shortcuts() -> None:
    with pytest.raises(SurgeryError, match="has a shortcut already"):
        add_shortcuts(build("resnet20", num_classes=10), torch.randn(2, 3, 32, 32))


def test_an_activation_may_be_used_many_times() -> None:
    activation = nn.ReLU()
    net = nn.Sequential(*(part for _ in range(5) for part in (nn.Linear(4, 4), activation)))
    assert add_shortcuts(net, torch.randn(2, 4)).changed


@pytest.mark.parametrize(
    ("strides", "extra", "axis", "before", "after"),
    [
        ((2, 2), 8, 1, (2, 8, 7, 8), (2, 16, 4, 4)),
        ((2,), 0, 1, (2, 8, 9), (2, 8, 5)),
        ((), 3, -1, (2, 5), (2, 8)),
        ((), 3, -1, (2, 7, 5), (2, 7, 8)),
    ],
)
def test_a_padded_shortcut(
    strides: tuple[int, ...], extra: int, axis: int, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    x = torch.randn(before)
    y = PaddedShortcut(strides, extra=extra, channel_axis=axis)(x)
    assert tuple(y.shape) == after
    assert y.abs().sum() == pytest.approx(
        float(x[(slice(None), slice(None), *(slice(None, None, s) for s in strides))].abs().sum())
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [("99", "no block '99': there are 3"), ("3", "only a block that keeps the shape")],
)
def test_a_block_that_cannot_be_removed_is_refused(name: str, words: str) -> None:
    with pytest.raises(SurgeryError, match=words):
        remove_blocks(trace(strided(), IMAGES), [name])
