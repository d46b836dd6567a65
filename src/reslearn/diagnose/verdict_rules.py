"""The names of the verdicts, their limits, and their rules as the page shows them.

`verdict.py` applies the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reslearn.diagnose.scores import CURED, HALFWAY, MARGIN

VerdictName = Literal[
    "degradation",
    "vanishing or exploding signal",
    "bad learning rate",
    "dead units",
    "overfitting",
    "data fault",
    "untrained parameters",
    "output layer",
    "too much regularization",
    "capacity too small",
    "healthy",
    "undecided",
]


@dataclass(frozen=True, kw_only=True)
class NetworkVerdict:
    """The verdict on a network.

    Attributes:
        reason: Sentences with the numbers that the verdict rests on.
        certain: Whether further seeds are unnecessary.
        subcause: The kind of the cause: "vanishing", "too high", "warm-up missing". May be empty.
        suspicion: The verdict that an undecided diagnosis suspects. May be empty.
    """

    name: VerdictName
    reason: str
    certain: bool
    subcause: str = ""
    suspicion: VerdictName | Literal[""] = ""


def unrepaired(verdict: NetworkVerdict) -> str:
    """Return why there is no patch for a verdict; empty if there may be one."""
    if verdict.name == "data fault" and verdict.subcause != "scale of the inputs":
        return CHANGED_BY_HAND
    return _UNREPAIRED.get(verdict.name, "")


def certain(name: VerdictName, reason: str, subcause: str = "") -> NetworkVerdict:
    """Return a verdict that further seeds would not change."""
    return NetworkVerdict(name=name, reason=reason, certain=True, subcause=subcause)


CURES: dict[VerdictName, str] = {
    "vanishing or exploding signal": "initialized",
    "dead units": "initialized",
    "output layer": "bare",
    "degradation": "shortcuts",
}
"""Variants that have the change which the advice of a verdict asks for."""
CHANGED_BY_HAND = "make the change that the answer names"
"""Why there is no patch if the fault is not in code that a patch changes."""
_UNREPAIRED: dict[VerdictName, str] = {
    "healthy": "nothing needs to be repaired",
    "overfitting": "no change of the network is known to help",
    "capacity too small": "how wide the layers are is your decision",
    "too much regularization": CHANGED_BY_HAND,
}
"""Verdicts without a patch, and why. `unrepaired` adds data faults."""
GRADIENT_RATIO = 1e3
SLOW_FACTOR = 4.0
"""A rate that is at most so many times smaller than the best one is slow, and not a fault."""
DEAD_SHARE = 0.6
"""Share of ReLU units that are zero for every input, from which the verdict is "dead units".

If the signal has vanished, the sign of its bias alone decides whether a unit is zero. So about half
of the units are zero then, without being the cause. The limit lies above this half.
"""
PROOF_GAP = 0.2
"""From this bound of the loss on, as a share of the loss of guessing above the least loss, the
output layer is called the cause."""
FEW_LAYERS = 5
OVERFITTING_GAP = 3 * MARGIN
RULES: tuple[tuple[VerdictName, str], ...] = (
    (
        "data fault",
        "Before training: the inputs are not finite, or they do not vary. After training: neither "
        f"a variant nor nearest neighbors beat guessing on held-out data by {MARGIN:g}. Or the "
        "network is worse than on standardized inputs, at its best learning rate or at yours.",
    ),
    (
        "untrained parameters",
        "Before training: the outputs depend on trainable tensors that neither net.parameters() "
        "nor the optimizer has. Or the optimizer has no parameter of the network. Nothing is "
        "trained.",
    ),
    (
        "output layer",
        "Before training: what follows the last weights bounds the loss, whatever its inputs are. "
        f"The bound is {PROOF_GAP:.0%} of the loss of guessing, or more, above what the loss can "
        "reach with free outputs. After training: the network is worse than without the activation "
        "behind its last weights.",
    ),
    (
        "too much regularization",
        f"The network has {CURED:g} of the loss of guessing or more, and without weight decay and "
        f"dropout it is better, and has {CURED:g} or less.",
    ),
    (
        "dead units",
        "The network is worse than with new initial weights, by He's rule or, if its "
        "activations saturate, by Glorot's. And "
        f"{DEAD_SHARE:.0%} or more of its ReLU units are zero for every input.",
    ),
    (
        "vanishing or exploding signal",
        "The network is worse than with newly initialized weights. If several of these three "
        f"changes help, the one that helps most is named; within {MARGIN:g}, the first. Or the "
        "network is worse than a shallower network, no better than guessing, and its gradients are "
        "extreme at start and end: the "
        f"gradients of the first third of layers are at least {GRADIENT_RATIO:g} times the "
        f"gradients of the last third, or at most 1/{GRADIENT_RATIO:g} of them.",
    ),
    (
        "degradation",
        "The network has a worse training loss than the shallow network, from which blocks are "
        "removed. If the shallow network learns nothing either: than the shallowest network. The "
        "verdict is not given if a removed block is narrower inside, because identities then "
        "cannot copy the shallow network. Nor is it given if the network is only slow: in the "
        f"longer trials it is better on held-out data, by {MARGIN:g}, than the shallower network "
        "was after half of the steps. If its training loss fell by more than "
        f"{MARGIN:g} in the second half, both networks must have had more steps in addition.",
    ),
    (
        "bad learning rate",
        "If a learning rate is given: the network is worse at this rate than at the best rate, on "
        "held-out data too, and at the best rate it learns. But a rate is only slow if every seed "
        f"ends at or below {HALFWAY:g}, and if the best rate is at most {SLOW_FACTOR:g} times as "
        "large. Or, before the rate falls, every seed learns nothing at the given rate and learns "
        "at the best one. If a "
        f"change at the given rate is within {MARGIN:g} of the best rate, the change is named: "
        "scaled inputs, another output layer, new weights, warm-up, or clipped gradients. Without "
        "a given rate: the network learns nothing at any rate, and is better with warm-up or "
        "clipped gradients.",
    ),
    (
        "capacity too small",
        "Another, wide network is better on held-out data than this network is on its training "
        "data. The network learns on every seed, and it is worse neither than the shallower "
        "networks, nor than itself with shortcuts, nor than a linear model of no more parameters. "
        f"With more than {FEW_LAYERS} layers a shallower or a residual network must exist. The "
        "learning rate is not at fault. The cause may also be regularization: weight decay or "
        "dropout.",
    ),
    (
        "overfitting",
        f"The held-out loss is more than {OVERFITTING_GAP:g} above the training loss. In addition, "
        f"it rose by more than {MARGIN:g} in the second half of training, or it is worse than "
        "guessing.",
    ),
    (
        "healthy",
        f"The network is better than guessing by more than {MARGIN:g}, and the whole interval is. "
        f"It ends surely below {MARGIN:g}, so that nothing could be better by the margin. Or it is "
        "not worse than the shallow network, or it is slow and surely better than the shallow "
        "network was after half of the steps. If no shallow network can be made, the network must "
        f"have {FEW_LAYERS} layers or fewer. It is not worse at the given learning rate than at "
        "the best one.",
    ),
    ("undecided", "No other rule applies with the required certainty."),
)
"""The rules in words.

"Worse" also holds if more seeds learn nothing, by Fisher's exact test. For the given learning rate
and the scale of the inputs, it also holds if the ratio of losses is surely above 1 and the median
difference is above MARGIN.
"""
