"""How the paper tests on ImageNet (Sec. 3.4, 4.1): one crop, ten crops, whole pictures at five scales, and ensembles of networks.

Each view of an image gives softmax scores, and these are averaged: over views, scales, mirror images and networks alike, each network
with its own preprocessing. Paper: "average the scores", which names no kind; AlexNet, whose 10-crop testing it is, averages what the
softmax gives. Lengths are the paper's for crops of 224 px, in proportion for networks that see other sizes: a shorter side of 256 for
ten crops (of the whole picture's corners, not of its center square), {224, 256, 384, 480, 640} for whole pictures.
Shapes: B images a batch, V views of each, C channels, H and W of a view, K classes, N images in all.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
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
    eval_batches,
    scale_length,
)
from reslearn.data.files import map_in_order
from reslearn.data.pictures import Pixels, five_crop, open_picture, resize_shorter_side
from reslearn.evaluate.metrics import Metrics, evaluate

Protocol = Literal["single", "ten-crop", "multi-scale"]
# Index of each image, and views of it: one tensor for each shape that they have.
ViewBatch = tuple[Int64[Tensor, "b"], list[Float[Tensor, "b v c h w"]]]

SCALES = (224, 256, 384, 480, 640)  # Paper: Table 4
_PORTION = 32  # pictures read ahead at all scales: some 200 MB at the paper's


def views(
    protocol: Protocol,
    images: ImageSet,
    preprocess: Preprocess,
    *,
    batch_size: int = 500,
    device: torch.device | str = "cpu",
) -> Iterator[ViewBatch]:
    """Every image once, with the views that `protocol` takes of it; whole pictures are grouped by shape, a few images a batch.

    Raises:
        ValueError: where the images have no more pixels than the network sees (the paper tests CIFAR by one view; so do we).
        DataError: for a picture file that cannot be read, when it is met.
    """
    if protocol not in get_args(Protocol):
        raise ValueError(f"protocol {protocol!r}: allowed are {', '.join(get_args(Protocol))}")
    if protocol == "single":
        return _single(images, preprocess, batch_size, device)
    if not isinstance(images, Files):
        raise ValueError(
            f"{protocol} cuts views out of pictures larger than the network sees: it needs a folder of images; images of one size, such "
            "as CIFAR's, are tested by their single view (Sec. 4.2)"
        )
    if protocol == "ten-crop":
        return _ten_crop(images, preprocess, batch_size, device)
    return _whole(images, preprocess, batch_size, device)


@torch.inference_mode()
def scores(
    net: nn.Module,
    batches: Iterable[ViewBatch],
    *,
    num_images: int,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Float64[Tensor, "n k"]:
    """Softmax scores of each image, averaged over its views, on the CPU. The mode of `net` is put back afterwards."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    found: Tensor | None = None
    try:
        for index, groups in batches:
            added, num_views = torch.zeros((), dtype=torch.float64), 0
            for group in groups:
                with autocast():
                    logits = net(group.flatten(0, 1))
                added = (
                    added + logits.double().softmax(1).unflatten(0, group.shape[:2]).sum(1).cpu()
                )
                num_views += group.shape[1]
            if found is None:
                found = torch.zeros(num_images, added.shape[1], dtype=torch.float64)
            found[index] = added / num_views
    finally:
        for module, training in modes.items():
            module.training = training
    if found is None:
        raise ValueError("no image to evaluate on")
    return found


def metrics_of_scores(found: Float64[Tensor, "n k"], labels: Int64[Tensor, "n"]) -> Metrics:
    """Loss (of the logarithm of the scores) and errors of averaged scores."""
    return evaluate(
        nn.Identity(), [(found.clamp_min(torch.finfo(torch.float32).tiny).log(), labels)]
    )


def _single(
    images: ImageSet, preprocess: Preprocess, batch_size: int, device: torch.device | str
) -> Iterator[ViewBatch]:
    start = 0
    for x, labels in eval_batches(images, preprocess, batch_size=batch_size, device=device):
        yield torch.arange(start, start + len(labels)), [x[:, None]]
        start += len(labels)


def _ten_crop(
    files: Files, preprocess: Preprocess, batch_size: int, device: torch.device | str
) -> Iterator[ViewBatch]:
    shorter_px = scale_length(TEST_SHORTER_PX, preprocess.size_px)

    def five(index: int) -> Pixels:
        image = open_picture(files.path(index), shorter_px)
        return np.stack(five_crop(image, shorter_px=shorter_px, size_px=preprocess.size_px))

    batch_size = max(1, batch_size // 10)
    pictures = map_in_order(five, range(len(files)), num_ahead=batch_size)
    for start in range(0, len(files), batch_size):
        index = torch.arange(start, min(start + batch_size, len(files)))
        pixels = torch.from_numpy(np.stack([next(pictures) for _ in index]))  # [B, 5, S, S, C]
        seen = preprocess.normalize(
            torch.cat([pixels, pixels.flip(3)], dim=1).to(device)
        )  # mirrored before the mean, as in training
        yield index, [seen.permute(0, 1, 4, 2, 3)]


def _whole(
    files: Files, preprocess: Preprocess, batch_size: int, device: torch.device | str
) -> Iterator[ViewBatch]:
    """Images are read in portions, and those of one shape go through the network together."""
    scales = [scale_length(scale, preprocess.size_px) for scale in SCALES]

    def at_all_scales(index: int) -> list[Pixels]:
        image = open_picture(files.path(index), scales[-1])
        return [resize_shorter_side(image, shorter_px=scale) for scale in scales]

    pictures = map_in_order(at_all_scales, range(len(files)), num_ahead=_PORTION)
    for start in range(0, len(files), _PORTION):
        alike: dict[tuple[int, ...], list[tuple[int, list[Pixels]]]] = defaultdict(list)
        for index in range(start, min(start + _PORTION, len(files))):
            picture = next(pictures)
            alike[tuple(side for pixels in picture for side in pixels.shape[:2])].append(
                (index, picture)
            )
        for members in alike.values():
            largest = members[0][1][-1]
            # so many that the largest scale fills no more memory than a batch of crops
            at_once = max(
                1, batch_size * preprocess.size_px**2 // (2 * largest.shape[0] * largest.shape[1])
            )
            for first in range(0, len(members), at_once):
                yield _mirrored(members[first : first + at_once], preprocess, device)


def _mirrored(
    members: Sequence[tuple[int, list[Pixels]]], preprocess: Preprocess, device: torch.device | str
) -> ViewBatch:
    groups = []
    for same_scale in zip(*(picture for _, picture in members), strict=True):
        seen = preprocess.normalize_any_size(
            torch.from_numpy(np.stack(same_scale)).to(device)
        ).permute(0, 3, 1, 2)
        groups.append(torch.stack([seen, seen.flip(3)], dim=1))
    return torch.tensor([index for index, _ in members]), groups
