"""What a training costs, near enough to plan by and to start the longest first: needs no torch.

Three passes (forward, and backward twice that) through the multiply-adds of every image shown (Table 1, Table 6).
"""

import re

from reslearn.paper.numbers import numbers
from reslearn.recipes import Recipe

_PASSES = 3
_RESNET20, _A_BLOCK_EACH = (
    40_551_040,
    14_155_776,
)  # paper.md: 6n+2 layers at 32 x 32 have n - 3 times the second more


def macs(model: str, size_px: int) -> float:
    """Multiply-adds of a forward pass of one image, near enough for planning: exact for nets for CIFAR at 32 x 32 and ImageNet's at 224."""
    depth = int(re.sub(r"\D", "", model) or 0)
    if (printed := numbers("table1").get(f"resnet{depth}")) is not None and depth % 6 != 2:
        return printed * 1e9 * (size_px / 224) ** 2
    return max(1, _RESNET20 + ((depth - 2) / 6 - 3) * _A_BLOCK_EACH) * (size_px / 32) ** 2


def arithmetic(recipe: Recipe) -> float:
    """Multiply-adds of a whole training, evaluations aside."""
    images = recipe.data.train_images or 50_000
    steps = recipe.schedule.duration.steps(num_images=images, batch_size=recipe.train.batch_size)
    return (
        _PASSES
        * macs(recipe.model.name, recipe.data.size_px or 32)
        * steps
        * recipe.train.batch_size
    )
