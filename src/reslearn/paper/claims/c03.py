"""C3: layers learn a residual with reference to their input, H(x) = F(x) + x (Sec. 3.1, Eq. 1 and 2). Exact, so nothing is trained."""

from typing import Literal

from reslearn.paper.claim import Budget, Claim, Finding, Runs, RunSpec

CLAIM = Claim(
    identifier="C3",
    text="Layers learn a residual with reference to their input: H(x) = F(x) + x",
    section="Sec. 3.1, Eq. 1 and 2",
    rule="Shown if every block of ResNets with options A, B and C and of a bottleneck ResNet gives ReLU(F(x) + shortcut(x)) in every "
    "bit, in training and in evaluation mode, and, with gamma and beta of F's last batch norm at zero, every block with an "
    "identity shortcut gives its input (>= 0) back in every bit. No margin. Not shown if one block fails.",
)

_NETS: tuple[tuple[str, Literal["A", "B", "C"]], ...] = (
    ("resnet20", "A"),
    ("resnet20", "B"),
    ("resnet20", "C"),
    ("resnet56", "A"),
    ("resnet50", "B"),
)


def conditions(budget: Budget) -> list[RunSpec]:
    """Nothing is trained."""
    return []


def judge(evidence: Runs) -> Finding:
    """Every block of five fresh networks, on random images."""
    import torch

    from reslearn.analysis import check_blocks
    from reslearn.models import build

    numbers = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, shortcut in _NETS:
            checks = check_blocks(
                build(name, num_classes=10, shortcut=shortcut), torch.randn(4, 3, 32, 32)
            )
            due = [check.is_identity for check in checks if check.is_identity is not None]
            numbers[f"{name} {shortcut}"] = {
                "blocks": len(checks),
                "sums": sum(check.is_sum for check in checks),
                "identities_due": len(due),
                "identities": sum(due),
            }
    total = {
        key: sum(net[key] for net in numbers.values())
        for key in ("blocks", "sums", "identities_due", "identities")
    }
    holds = (
        total["sums"] == total["blocks"] > 0 and total["identities"] == total["identities_due"] > 0
    )
    return Finding(
        claim=CLAIM,
        outcome="shown" if holds else "not shown",
        measured=f"{total['sums']} of {total['blocks']} blocks are ReLU(F(x) + shortcut(x)) in every bit; zeroed, "
        f"{total['identities']} of {total['identities_due']} are the identity",
        numbers=numbers,
    )
