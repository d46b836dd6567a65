"""C12: identity shortcuts add no parameters and no computation worth counting.

Paper: Sec. 3.2 and 3.3, Tables 1 and 6.
The test is exact, so nothing is trained.
"""

import math
from typing import Any

from reslearn.paper.experiment import Experiment, Result
from reslearn.paper.trained import Trained

_LARGEST_SHARE_PCT = 1.0
_SHAPES = {18: (3, 224, 224), 34: (3, 224, 224)} | dict.fromkeys((20, 56, 110), (3, 32, 32))

EXPERIMENT = Experiment(
    name="C12",
    text="Identity shortcuts add neither parameters nor computation worth counting",
    section="Sec. 3.2, 3.3, Tables 1 and 6",
    rule=(
        "Plain and residual networks with option A are counted at five of the paper's depths: 18 "
        "and 34 for ImageNet, 20, 56 and 110 for CIFAR. Shown: both have the same number of "
        "parameters and of multiply-adds, to the unit, and the additions (one per number that "
        "leaves a block) are below 1 % of the multiply-adds. Not shown: everything else."
    ),
)


def measure(trained: Trained) -> Result:
    """Count plain and residual networks of each depth."""
    rows = [_row(depth) for depth in _SHAPES]
    are_equal = all(
        row["parameters"] == row["plain_parameters"] and row["macs"] == row["plain_macs"]
        for row in rows
    )
    share_pct = max(row["additions_pct"] for row in rows)
    deepest = rows[-1]
    counts = "different parameters or MACs"
    if are_equal:
        counts = "the same parameters and MACs, to the unit"
    return Result(
        outcome="shown" if are_equal and share_pct < _LARGEST_SHARE_PCT else "not shown",
        measured=(
            f"{len(rows)} depths: plain and residual have {counts} ({deepest['parameters']:,} and "
            f"{deepest['macs']:,} at {deepest['depth']} layers); the additions are at most "
            f"{share_pct:.2f} % of the MACs"
        ),
        numbers={"rows": rows},
    )


def _row(depth: int) -> dict[str, Any]:
    import torch

    from reslearn.models import build, complexity

    with torch.device("meta"):
        plain = build(f"plain{depth}", num_classes=10)
        residual = build(f"resnet{depth}", num_classes=10, shortcut="A")
    counted = complexity(residual, _SHAPES[depth])
    plain_counted = complexity(plain, _SHAPES[depth])
    # The sum in a block has the shape of the output of the block's last layer.
    additions = 0
    for block, _ in residual.blocks():
        shapes = [
            layer.output_shape
            for layer in counted.layers
            if layer.name.startswith(f"{block}.body.")
        ]
        additions += math.prod(shapes[-1])
    return {
        "depth": depth,
        "parameters": counted.parameters,
        "plain_parameters": plain_counted.parameters,
        "macs": counted.macs,
        "plain_macs": plain_counted.macs,
        "additions": additions,
        "additions_pct": 100 * additions / counted.macs,
    }
