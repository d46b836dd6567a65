"""Parts of a network, outputs of stages, layers of Fig. 7, channels_last and torch.compile."""

import pytest
import torch
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped
from torch import nn

from reslearn.models import Network, ZeroPadShortcut, build


@pytest.fixture(scope="module")
def net() -> Network:
    torch.manual_seed(0)
    return build("resnet8", num_classes=10, shortcut="B")


def test_the_state_dict_is_in_the_order_of_the_computation(net: Network) -> None:
    weights = [name for name, parameter in net.named_parameters() if parameter.dim() > 1]
    assert weights == [
        "stem.conv.weight",
        "stage1.0.body.conv1.weight",
        "stage1.0.body.conv2.weight",
        "stage2.0.body.conv1.weight",
        "stage2.0.body.conv2.weight",
        "stage2.0.shortcut.conv.weight",
        "stage3.0.body.conv1.weight",
        "stage3.0.body.conv2.weight",
        "stage3.0.shortcut.conv.weight",
        "head.fc.weight",
    ]


def test_stages_are_the_values_of_the_forward_pass(net: Network) -> None:
    x = torch.randn(2, 3, 16, 16)
    net.eval()
    outputs = net.stages(x)
    assert {name: tuple(output.shape[1:]) for name, output in outputs.items()} == {
        "stem": (16, 16, 16),
        "stage1": (16, 16, 16),
        "stage2": (32, 8, 8),
        "stage3": (64, 4, 4),
    }
    copies = {name: output.clone() for name, output in outputs.items()}
    assert torch.equal(net.head(outputs["stage3"]), net(x))
    assert torch.equal(net.stage2(outputs["stage1"]), outputs["stage2"])
    assert all(torch.equal(outputs[name], copies[name]) for name in copies), (
        "later stages work in place on none of them"
    )


def test_blocks_have_the_names_of_the_modules(net: Network) -> None:
    assert [name for name, _ in net.blocks()] == ["stage1.0", "stage2.0", "stage3.0"]
    assert all(net.get_submodule(name) is block for name, block in net.blocks())


@pytest.mark.parametrize(("normalize", "kind"), [(True, nn.BatchNorm2d), (False, nn.Conv2d)])
def test_responses_are_taken_before_the_relu(normalize: bool, kind: type[nn.Module]) -> None:
    layers = build("resnet14", num_classes=10, shortcut="C", normalize=normalize).response_layers()
    assert [name for name, _ in layers] == [
        "stem.conv",
        *[
            f"stage{stage}.{block}.body.conv{conv}"
            for stage in (1, 2, 3)
            for block in (0, 1)
            for conv in (1, 2)
        ],
    ]
    assert all(isinstance(module, kind) for _, module in layers)
    assert len({id(module) for _, module in layers}) == len(layers)


@pytest.mark.parametrize("name", ["plain8", "resnet8", "resnet18", "resnet50"])
def test_all_stages_preserve_channels_last(name: str) -> None:
    net = build(name, num_classes=10).to(memory_format=torch.channels_last).eval()
    x = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.no_grad():
        outputs = net.stages(x)
    assert all(
        output.is_contiguous(memory_format=torch.channels_last) for output in outputs.values()
    )
    assert not any(output.is_contiguous() for output in outputs.values()), (
        "or the check above could not fail"
    )


@pytest.mark.parametrize(
    "switches", [{}, {"shortcut": "C"}, {"subsample": "average"}, {"checkpoint_activations": True}]
)
def test_the_forward_pass_compiles_as_one_graph(switches: dict[str, object]) -> None:
    net = build("resnet8", num_classes=10, **switches)
    torch._dynamo.reset()
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    torch.compile(net, backend=count, fullgraph=True)(torch.randn(2, 3, 8, 8))
    assert len(graphs) == 1


def test_gradients_reach_every_parameter(net: Network) -> None:
    net.train()
    net(torch.randn(2, 3, 16, 16)).sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all()
        for parameter in net.parameters()
    )


def test_annotated_shapes_are_correct(net: Network) -> None:
    forward = jaxtyped(Network.forward, typechecker=beartype)
    stages = jaxtyped(Network.stages, typechecker=beartype)
    shortcut = jaxtyped(ZeroPadShortcut.forward, typechecker=beartype)
    x = torch.randn(2, 3, 16, 16)
    forward(net, x)
    stages(net, x)
    shortcut(ZeroPadShortcut(3, 6, stride=2, zero_pad="append", subsample="slice"), x)
    with pytest.raises(TypeCheckError):
        forward(net, x[0])
