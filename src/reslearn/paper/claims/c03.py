"""C3: layers learn a residual with reference to their input, H(x) = F(x) + x.

Paper: Sec. 3.1, Eq. 1 and 2.
The test is exact, so nothing is trained.
"""

from collections import Counter
from typing import Literal

from reslearn.paper.experiment import Experiment, Result
from reslearn.paper.trained import Trained

EXPERIMENT = Experiment(
    name="C3",
    text="Layers learn a residual with reference to their input: H(x) = F(x) + x",
    section="Sec. 3.1, Eq. 1 and 2",
    rule=(
        "The blocks of ResNets with options A, B and C and of a bottleneck ResNet are tested in "
        "training and in evaluation mode. Shown: every block returns ReLU(F(x) + shortcut(x)) in "
        "every bit, and every block with an identity shortcut returns its input (>= 0) in every "
        "bit once gamma and beta of F's last batch norm are zero. Not shown: one block fails. "
        "There is no margin."
    ),
)

_NETWORKS: tuple[tuple[str, Literal["A", "B", "C"]], ...] = (
    ("resnet20", "A"),
    ("resnet20", "B"),
    ("resnet20", "C"),
    ("resnet56", "A"),
    ("resnet50", "B"),
)


def measure(trained: Trained) -> Result:
    """Test every block of five untrained networks on random images."""
    import torch

    from reslearn.analysis import check_blocks
    from reslearn.models import build

    numbers = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, shortcut in _NETWORKS:
            network = build(name, num_classes=10, shortcut=shortcut)
            checks = check_blocks(network, torch.randn(4, 3, 32, 32))
            identities = [check.is_identity for check in checks if check.is_identity is not None]
            numbers[f"{name} {shortcut}"] = {
                "blocks": len(checks),
                "sums": sum(check.is_sum for check in checks),
                "identities_due": len(identities),
                "identities": sum(identities),
            }
    total: Counter[str] = Counter()
    for counts in numbers.values():
        total.update(counts)
    are_sums = total["sums"] == total["blocks"] > 0
    are_identities = total["identities"] == total["identities_due"] > 0
    return Result(
        outcome="shown" if are_sums and are_identities else "not shown",
        measured=(
            f"{total['sums']} of {total['blocks']} blocks are ReLU(F(x) + shortcut(x)) in every "
            f"bit; with zeros in the last batch norm, {total['identities']} of "
            f"{total['identities_due']} are the identity"
        ),
        numbers=numbers,
    )
