"""Cost of a training in multiply-adds, from its recipe alone. Needs no torch.

The numbers are accurate enough to plan by, and to start the longest runs first.
"""

import re

from reslearn.recipes import Recipe

_PASSES = 3  # a step costs one forward pass, and a backward pass of twice that

# Table 1, at 224 x 224. ResNet-50 and ResNet-152 are missing, because 50 and 152 are also depths
# 6n + 2 of CIFAR networks: they are estimated by the formula below.
_IMAGENET_MACS = {18: 1.8 * 1e9, 34: 3.6 * 1e9, 101: 7.6 * 1e9}

# Sec. 4.2, at 32 x 32: n blocks in each of three stages, n = 3 in ResNet-20.
_RESNET20_MACS = 40_551_040
_MACS_PER_N = 14_155_776


def training_macs(recipe: Recipe) -> float:
    """Return the multiply-adds of a whole training, evaluations not included."""
    num_images = recipe.data.train_images or 50_000
    steps = recipe.schedule.duration.steps(
        num_images=num_images, batch_size=recipe.train.batch_size
    )
    macs = forward_macs(recipe.model.name, recipe.data.size_px or 32)
    return _PASSES * macs * steps * recipe.train.batch_size


def forward_macs(model: str, size_px: int) -> float:
    """Return the approximate multiply-adds of a forward pass of one image.

    The number is exact for the paper's CIFAR networks at 32 px.

    Args:
        model: Name that ends in the number of layers, for example "resnet56".
        size_px: Side length of the square image.
    """
    depth = int(re.sub(r"\D", "", model) or 0)
    if depth in _IMAGENET_MACS:
        return _IMAGENET_MACS[depth] * (size_px / 224) ** 2
    n = (depth - 2) / 6
    return max(1, _RESNET20_MACS + (n - 3) * _MACS_PER_N) * (size_px / 32) ** 2
