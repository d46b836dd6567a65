"""The names of the verdicts, their limits, and their rules as the page shows them.

`verdict.py` applies the rules.
"""

from __future__ import annotations

from typing import Literal

from reslearn.diagnose.scores import MARGIN

VerdictName = Literal[
    "degradation",
    "vanishing or exploding signal",
    "bad learning rate",
    "dead units",
    "overfitting",
    "data fault",
    "untrained parameters",
    "output layer",
    "capacity too small",
    "healthy",
    "undecided",
]

GRADIENT_RATIO = 1e3
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
        "network is worse than on standardized inputs.",
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
        "reach with free outputs. Nothing is trained.",
    ),
    (
        "dead units",
        "The network is worse than with weights newly initialized by He's rule, and "
        f"{DEAD_SHARE:.0%} or more of its ReLU units are zero for every input.",
    ),
    (
        "vanishing or exploding signal",
        "The network is worse than with newly initialized weights. Or it is worse than a shallower "
        "network, no better than guessing, and its gradients are extreme at start and end: the "
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
        "was after half of the steps.",
    ),
    (
        "bad learning rate",
        "If a learning rate is given: the network is worse at this rate than at the best rate, on "
        "held-out data too, and at the best rate it learns.",
    ),
    (
        "capacity too small",
        "Another, wide network is better on held-out data than this network is on its training "
        "data. The network is worse neither than the shallower networks nor than itself with "
        f"shortcuts; with more than {FEW_LAYERS} layers one of these must exist. The cause may "
        "also be regularization: weight decay or dropout.",
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
        "It is not worse than the shallow network, or it is slow and surely better than the "
        "shallow network was after half of the steps. It is not worse at the given learning rate "
        "than at the best one. If no shallow network can be made, the network must have "
        f"{FEW_LAYERS} layers or fewer.",
    ),
    ("undecided", "No other rule applies with the required certainty."),
)
