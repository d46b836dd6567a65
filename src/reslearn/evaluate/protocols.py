"""The paper's test protocols on ImageNet (Sec. 3.4, 4.1): one crop, ten crops, or five scales.

Each view of an image gives softmax scores. Scores are averaged over views, scales, mirror images
and the networks of an ensemble; each network has its own preprocessing. Paper: "average the
scores", without naming the kind. The 10-crop test comes from AlexNet, which averages softmax
outputs.

The paper's lengths are for crops of 224 px. They scale in proportion for networks with another
input size. Ten crops come from the corners of the whole picture, whose shorter side is 256, not
from its center square. Whole pictures have a shorter side of 224, 256, 384, 480 and 640.

Shapes: B images in a batch, V views of each, C channels, H and W of a view, K classes, N images.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from reslearn.data import (
    TEST_SHORTER_PX,
    Files,
    ImageSet,
    Preprocess,
    scale_length,
)
from reslearn.data.batches import indexed_eval_batches
from reslearn.data.pictures import Pixels, five_crop, open_picture, resize_shorter_side
from reslearn.evaluate.metrics import Metrics, evaluate

Protocol = Literal["single", "ten-crop", "multi-scale"]
ViewBatch = tuple[Int64[Tensor, "b"], list[Float[Tensor, "b v c h w"]]]
"""The index of each image, and its views: one tensor for each size of the views."""

SCALES = (224, 256, 384, 480, 640)  # Paper: Table 4
_READ_AHEAD = 32  # pictures at all scales: about 200 MB at the paper's sizes


def views(
    protocol: Protocol,
    images: ImageSet,
    preprocess: Preprocess,
    *,
    batch_size: int = 500,
    device: torch.device | str = "cpu",
) -> Iterator[ViewBatch]:
    """Yield the views of every image, each image once.

    Whole pictures ("multi-scale") are grouped by shape, so a batch has few images. Picture files
    that cannot be read are left out.

    Raises:
        ValueError: If the protocol is unknown, or if the images are no larger than the input of the
            network. The paper tests CIFAR with a single view, and so do we.
        DataError: While iterating, if more than half of the picture files cannot be read.
    """
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol {protocol!r}: allowed are {', '.join(get_args(Protocol))}")
    if protocol == "single":
        return _single_views(images, preprocess, batch_size, device)
    if not isinstance(images, Files):
        raise ValueError(
            f"{protocol} cuts views out of pictures larger than the network sees: it needs "
            "a folder of images; images of one size, such as CIFAR's, are tested with a single "
            "view (Sec. 4.2)"
        )
    if protocol == "ten-crop":
        return _ten_crops(images, preprocess, batch_size, device)
    return _whole_pictures(images, preprocess, batch_size, device)


@torch.inference_mode()
def scores(
    net: nn.Module,
    batches: Iterable[ViewBatch],
    *,
    num_images: int,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Float64[Tensor, "n k"]:
    """Return the softmax scores of each image, averaged over its views, on the CPU.

    The scores of an image without views, which could not be read, are 0.

    Args:
        net: The network; returned to its previous mode.
        batches: The views of each image, from `views`.
        num_images: Number of images.
        autocast: Makes the context of a forward pass.

    Raises:
        ValueError: If there are no images.
    """
    modes = {module: module.training for module in net.modules()}
    net.eval()
    averages: Tensor | None = None
    try:
        for index, groups in batches:
            summed, num_views = torch.zeros((), dtype=torch.float64), 0
            for group in groups:
                with autocast():
                    logits = net(group.flatten(0, 1))
                view_scores = logits.double().softmax(1).unflatten(0, group.shape[:2])
                summed = summed + view_scores.sum(1).cpu()
                num_views += group.shape[1]
            if averages is None:
                averages = torch.zeros(num_images, summed.shape[1], dtype=torch.float64)
            averages[index] = summed / num_views
    finally:
        for module, training in modes.items():
            module.training = training
    if averages is None:
        raise ValueError("there are no images to evaluate on")
    return averages


def metrics_of_scores(averages: Float64[Tensor, "n k"], labels: Int64[Tensor, "n"]) -> Metrics:
    """Compute loss and errors of averaged scores. The loss uses the logarithm of the scores.

    Images whose scores are all 0 could not be read, and are left out.
    """
    is_read = (averages != 0).any(dim=1)
    logarithms = averages[is_read].clamp_min(torch.finfo(torch.float32).tiny).log()
    return evaluate(nn.Identity(), [(logarithms, labels[is_read])])


def _single_views(
    images: ImageSet, preprocess: Preprocess, batch_size: int, device: torch.device | str
) -> Iterator[ViewBatch]:
    batches = indexed_eval_batches(images, preprocess, batch_size=batch_size, device=device)
    for index, x, _ in batches:
        yield index, [x[:, None]]


def _ten_crops(
    files: Files, preprocess: Preprocess, batch_size: int, device: torch.device | str
) -> Iterator[ViewBatch]:
    shorter_px = scale_length(TEST_SHORTER_PX, preprocess.size_px)

    def five_crops(path: Path) -> Pixels:
        image = open_picture(path, shorter_px)
        return np.stack(five_crop(image, shorter_px=shorter_px, size_px=preprocess.size_px))

    batch_size = max(1, batch_size // 10)
    for group in files.read_groups(five_crops, group_size=batch_size):
        crops = torch.from_numpy(np.stack([crops for _, crops in group]))  # [B, 5, S, S, C]
        # As in training, pictures are mirrored before the mean is subtracted.
        ten_crops = torch.cat([crops, crops.flip(3)], dim=1).to(device)
        index = torch.tensor([index for index, _ in group])
        yield index, [preprocess.normalize(ten_crops).permute(0, 1, 4, 2, 3)]


def _whole_pictures(
    files: Files, preprocess: Preprocess, batch_size: int, device: torch.device | str
) -> Iterator[ViewBatch]:
    """Read a few pictures at a time. Pictures of one shape go through the network together."""
    scales = [scale_length(scale, preprocess.size_px) for scale in SCALES]

    def at_all_scales(path: Path) -> list[Pixels]:
        image = open_picture(path, scales[-1])
        return [resize_shorter_side(image, shorter_px=scale) for scale in scales]

    for pictures in files.read_groups(at_all_scales, group_size=_READ_AHEAD):
        by_shape: dict[tuple[int, ...], list[tuple[int, list[Pixels]]]] = defaultdict(list)
        for index, picture in pictures:
            shape = sum((pixels.shape[:2] for pixels in picture), ())
            by_shape[shape].append((index, picture))
        for group in by_shape.values():
            height, width = group[0][1][-1].shape[:2]
            # The largest scale must not need more memory than a batch of crops.
            num_images = max(1, batch_size * preprocess.size_px**2 // (2 * height * width))
            for first in range(0, len(group), num_images):
                yield _mirrored(group[first : first + num_images], preprocess, device)


def _mirrored(
    group: Sequence[tuple[int, list[Pixels]]], preprocess: Preprocess, device: torch.device | str
) -> ViewBatch:
    """Return each picture and its mirror image, at each scale."""
    views_by_scale = []
    for same_scale in zip(*(picture for _, picture in group), strict=True):
        pixels = torch.from_numpy(np.stack(same_scale)).to(device)
        normalized = preprocess.normalize_any_size(pixels).permute(0, 3, 1, 2)
        views_by_scale.append(torch.stack([normalized, normalized.flip(3)], dim=1))
    return torch.tensor([index for index, _ in group]), views_by_scale
