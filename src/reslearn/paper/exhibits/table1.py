"""Table 1: the architectures for ImageNet, counted. Nothing is trained.

The paper's multiply-adds show which network it means: 3.8, 7.6 and 11.3 GMACs belong to option B
with the stride in the first 1x1 convolution of a bottleneck. The count for the widespread stride in
the 3x3 convolution is shown beside them.
"""

from reslearn.paper.experiment import Experiment, Line, Result
from reslearn.paper.numbers import numbers
from reslearn.paper.rules import exact
from reslearn.paper.trained import Trained
from reslearn.report import Cell, Table

EXPERIMENT = Experiment(
    name="table1",
    text="Architectures for ImageNet",
    section="Table 1",
    data="none",
    rule=(
        "Reproduced: our multiply-adds differ by at most one unit of the last printed digit (0.1 "
        "GMACs)."
    ),
)
INPUT_SHAPE = (3, 224, 224)


def measure(trained: Trained) -> Result:
    """Count each network on the meta device."""
    counts = [_count(name, gmacs) for name, gmacs in numbers("table1").items()]
    table = Table(
        "Counts for an image of 224 x 224 pixels, of convolutions and the fully connected layer. "
        "Maps: after conv1, after pooling, and after each stage.",
        ["network", "option", "blocks", "maps", "parameters", "multiply-adds", "stride in 3x3"],
        [row for _, row in counts],
    )
    return Result(lines=tuple(line for line, _ in counts), tables=(table,))


def _count(name: str, paper_gmacs: float) -> tuple[Line, list[Cell]]:
    """Return the line and the row of a network."""
    import torch

    from reslearn.models import build, complexity

    with torch.device("meta"):
        network = build(name, num_classes=1000)
        stride_in_3x3 = ""
        if any(".conv3" in layer for layer, _ in network.response_layers()):
            variant = build(name, num_classes=1000, stride_in="3x3")
            stride_in_3x3 = f"{complexity(variant, INPUT_SHAPE).macs:,}"
    counted = complexity(network, INPUT_SHAPE)
    # The last layer of a part has the map of the part.
    maps = {layer.name.partition(".")[0]: layer.output_shape for layer in counted.layers}
    del maps["head"]
    blocks = [
        str(sum(block.startswith(f"{stage}.") for block, _ in network.blocks()))
        for stage in maps
        if stage != "stem"
    ]
    shapes = [counted.layers[0].output_shape, *maps.values()]
    row: list[Cell] = [
        name,
        str(network.spec["shortcut"]),
        ", ".join(blocks),
        " ".join("x".join(map(str, shape)) for shape in shapes),
        f"{counted.parameters:,}",
        f"{counted.macs:,}",
        stride_in_3x3,
    ]
    gmacs = counted.macs / 1e9
    return exact(f"{name}, multiply-adds", "10^9", gmacs, paper_gmacs, within=0.1), row
