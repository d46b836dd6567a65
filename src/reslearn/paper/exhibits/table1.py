"""Table 1: the architectures for ImageNet, counted. Nothing is trained: sizes of maps, multiply-adds and parameters, to the unit.

The paper's multiply-adds tell which network it means: 3.8, 7.6 and 11.3 GMACs are those of a stride in the first 1x1 of a bottleneck
with option B. That of the widespread stride in the 3x3 is shown beside.
"""

from reslearn.paper.claim import Budget, Runs, RunSpec
from reslearn.paper.exhibit import Depths, Exhibit, Measured, exact
from reslearn.paper.numbers import numbers
from reslearn.report import Table

EXHIBIT = Exhibit(
    name="table1",
    title="Architectures for ImageNet",
    section="Table 1",
    data="none",
    rule="Reproduced: our multiply-adds differ by at most one unit of the last digit printed (0.1 GMACs).",
)
DEPTHS: dict[str, Depths] = {}
INPUT_SHAPE = (3, 224, 224)


def conditions(budget: Budget) -> list[RunSpec]:
    """Nothing to train."""
    return []


def measure(evidence: Runs) -> Measured:
    """Count each network on the meta device."""
    import torch

    from reslearn.models import build, complexity

    lines, rows = [], []
    for name, paper in numbers("table1").items():
        with torch.device("meta"):
            net, late = build(name, num_classes=1000), None
            if any(".conv3" in layer for layer, _ in net.response_layers()):
                late = complexity(build(name, num_classes=1000, stride_in="3x3"), INPUT_SHAPE)
            with torch.no_grad():
                maps = net.stages(torch.empty(2, *INPUT_SHAPE))
        count = complexity(net, INPUT_SHAPE)
        lines.append(exact(f"{name}, multiply-adds", "10^9", count.macs / 1e9, paper, within=0.1))
        blocks = [
            sum(block.startswith(f"{stage}.") for block, _ in net.blocks())
            for stage in maps
            if stage != "stem"
        ]
        shapes = [count.layers[0].output_shape, *(output.shape[1:] for output in maps.values())]
        sizes = " ".join("x".join(map(str, shape)) for shape in shapes)
        cells = [
            ", ".join(map(str, blocks)),
            sizes,
            f"{count.parameters:,}",
            f"{count.macs:,}",
            "" if late is None else f"{late.macs:,}",
        ]
        rows.append([name, net.spec["shortcut"], *cells])
    caption = "Counted for an image of 224 x 224, convolutions and fc. Maps of conv1, after pooling, and of each stage."
    heads = ["network", "option", "blocks", "maps", "parameters", "multiply-adds", "stride in 3x3"]
    return Measured(lines=tuple(lines), tables=(Table(caption, heads, rows),))
