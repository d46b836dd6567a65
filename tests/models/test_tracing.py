"""Tracing of networks: what is recorded, and networks that cannot be recorded or changed."""

import pytest
import torch
from torch import Tensor, nn

from reslearn.models import SurgeryError, add_shortcuts, blocks, remove_blocks, trace


class Tuple(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.relu(self.layer(x)))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class OtherInTraining(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if self.training else x


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Tuple(), "returns a tuple"),
        (Twice(), r"layer is used more than once \(.*test_tracing.py:\d+\)"),
        (Branching(), r"cannot be recorded: .*test_tracing.py:\d+"),
        (OtherInTraining(), r"something else in training .*test_tracing.py:\d+\)"),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), "no two layers in a row"),
        (nn.Linear(5, 5), r"cannot take inputs of shape \(2, 4\)"),
    ],
)
def test_a_network_that_cannot_be_traced_is_refused_in_one_line(net: nn.Module, words: str) -> None:
    with pytest.raises(SurgeryError, match=words) as error:
        add_shortcuts(net, torch.randn(2, 4))
    assert "\n" not in str(error.value)


class Masked(nn.Module):
    """A network with optional arguments that decide the path, as transformers have."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *[layer for _ in range(4) for layer in (nn.Linear(4, 4), nn.ReLU())], nn.Linear(4, 2)
        )

    def forward(
        self, x: Tensor, mask: Tensor | None = None, features: bool = False, scale: float = 1.0
    ) -> Tensor:
        if mask is not None:
            x = x * mask
        return x if features else self.layers(x) * scale


def test_optional_arguments_are_recorded_with_their_defaults() -> None:
    x = torch.randn(2, 4)
    net = Masked()
    network = add_shortcuts(net, x).network
    assert torch.equal(network(x), network(x, mask=None, features=False, scale=1.0))
    assert torch.equal(network(x, scale=2.0), 2 * network(x))
    with pytest.raises(AssertionError, match="mask"):
        network(x, mask=x)
    assert network.state_dict().keys() == net.state_dict().keys()


def test_transformer_layers_of_torch_get_no_second_shortcuts() -> None:
    layers = [nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(3)]
    net = nn.Sequential(nn.Linear(4, 8), *layers, nn.Linear(8, 2))
    with pytest.raises(SurgeryError, match="has a shortcut already"):
        add_shortcuts(net, torch.randn(2, 5, 4))


class Heads(nn.Module):
    """Attention written by hand: inside it, the heads are an axis of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.q, self.k, self.v, self.o = (
            nn.LayerNorm(8),
            *(nn.Linear(8, 8) for _ in range(4)),
        )
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        h = self.norm(x)
        q, k, v = (
            layer(h).view(batch, length, 2, width // 2).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.down(
            torch.relu(self.up(self.o(mixed.transpose(1, 2).reshape(batch, length, width))))
        )


def test_attention_written_by_hand_is_one_block() -> None:
    net, example = (
        nn.Sequential(nn.Linear(5, 8), Heads(), Heads(), nn.Flatten(), nn.Linear(48, 3)),
        torch.randn(4, 6, 5),
    )
    traced = trace(net, example)
    assert [(block.name, block.keeps_shape, block.num_layers) for block in blocks(traced)] == [
        ("1.norm", True, 4),
        ("1.up", True, 2),
        ("2.norm", True, 4),
        ("2.up", True, 2),
    ]
    assert add_shortcuts(net, example).changed == ("1.norm", "1.up", "2.norm", "2.up")
    shallow = remove_blocks(traced, ["1.norm", "2.up"]).network
    assert shallow(example).shape == (4, 3) and not any(
        name.startswith("1.q") for name, _ in shallow.named_parameters()
    )


def test_layers_of_a_recurrent_network_are_counted() -> None:
    assert trace(Recurrent(), torch.randn(2, 5, 4)).num_layers == 4


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = nn.LSTM(4, 6, num_layers=3, batch_first=True), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][:, -1])


def test_a_module_that_cannot_be_recorded_is_one_node() -> None:
    net = nn.Sequential(
        nn.Linear(4, 4),
        nn.ReLU(),
        Branching(),
        nn.Linear(4, 4),
        nn.ReLU(),
        nn.Linear(4, 4),
        nn.ReLU(),
        nn.Linear(4, 2),
    )
    assert add_shortcuts(net, torch.randn(2, 4)).changed == ("3",)
