"""C12: identity shortcuts add no parameters and no computation worth counting (Sec. 3.2 and 3.3, Tables 1 and 6). Exact."""

import math
from typing import Any

from reslearn.paper.claim import Budget, Claim, Finding, Runs, RunSpec

CLAIM = Claim(
    identifier="C12",
    text="Identity shortcuts add neither parameters nor computation worth counting",
    section="Sec. 3.2, 3.3, Tables 1 and 6",
    rule="Shown if at five of the paper's depths (18 and 34 of ImageNet, 20, 56 and 110 of CIFAR) the plain and the residual net "
    "with option A have the same number of parameters and of multiply-adds, to the unit, and the additions, one a number that "
    "leaves a block, are below 1 % of the multiply-adds. Not shown otherwise.",
)

_LARGEST_SHARE_PCT = 1.0
_SHAPES = {18: (3, 224, 224), 34: (3, 224, 224)} | dict.fromkeys((20, 56, 110), (3, 32, 32))


def conditions(budget: Budget) -> list[RunSpec]:
    """Nothing is trained."""
    return []


def judge(evidence: Runs) -> Finding:
    """Count plain and residual nets of each depth."""
    rows = [_row(depth) for depth in _SHAPES]
    equal = all(
        row["parameters"] == row["plain_parameters"] and row["macs"] == row["plain_macs"]
        for row in rows
    )
    share = max(row["additions_pct"] for row in rows)
    last = rows[-1]
    same = "the same parameters and MACs, to the unit" if equal else "different parameters or MACs"
    deepest = f"{last['parameters']:,} and {last['macs']:,} at {last['depth']} layers"
    return Finding(
        claim=CLAIM,
        outcome="shown" if equal and share < _LARGEST_SHARE_PCT else "not shown",
        measured=f"{len(rows)} depths: plain and residual have {same} ({deepest}); the additions are at most {share:.2f} % of the MACs",
        numbers={"rows": rows},
    )


def _row(depth: int) -> dict[str, Any]:
    from reslearn.models import build, complexity

    plain, residual = (
        build(f"plain{depth}", num_classes=10),
        build(f"resnet{depth}", num_classes=10, shortcut="A"),
    )
    counted, reference = complexity(residual, _SHAPES[depth]), complexity(plain, _SHAPES[depth])
    # What a block adds has the shape of its last layer's output.
    shapes = {layer.name: layer.output_shape for layer in counted.layers}
    ends = [
        [shape for name, shape in shapes.items() if name.startswith(f"{block}.body.")][-1]
        for block, _ in residual.blocks()
    ]
    additions = sum(math.prod(shape) for shape in ends)
    return {
        "depth": depth,
        "parameters": counted.parameters,
        "plain_parameters": reference.parameters,
        "macs": counted.macs,
        "plain_macs": reference.macs,
        "additions": additions,
        "additions_pct": 100 * additions / counted.macs,
    }
