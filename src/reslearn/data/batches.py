"""In-memory loaders: whole batches are gathered, normalized, padded, cropped and mirrored by tensor operations on the training device.

Augmentation as in Sec. 4.2. Gives the same batches, bit for bit, as the per-image path (per_image.py), at a hundredth of its cost.
Shapes: B batch, H = W = size_px, C channels; pixels uint8 [B, H, W, C], batches float32 [B, C, H, W] in channels_last memory.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from reslearn.data.dataset import ImageSet
from reslearn.data.files import Files, in_order
from reslearn.data.images import Images
from reslearn.data.preprocess import Preprocess
from reslearn.data.views import PAPER_AUGMENT, Augment, Views, ViewSequence

Batch = tuple[Float32[Tensor, "b c h w"], Int64[Tensor, "b"]]


def train_batches(
    images: Images,
    preprocess: Preprocess,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    augment: Augment = PAPER_AUGMENT,
    device: torch.device | str = "cpu",
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Endless full batches (x float32 [B, C, H, W] channels_last, y int64 [B]); that of step t depends on (seed, t) alone.

    `share` (which, of how many) gives one of so many equal parts of each batch, in order: what one process of many trains on.

    Raises:
        ValueError: for a batch size below 1, one that cannot be shared, a step below 0, or images that do not fit the preprocessing.
    """
    check_position(batch_size, start_step, share)
    views = ViewSequence(seed=seed, num_images=len(images), augment=augment, device=device)
    preprocess.normalize(
        images.pixels[:1]
    )  # says now, not at the first batch, that shapes do not fit
    return _train_batches(
        images.to(device),
        preprocess.to(device),
        views,
        batch_size,
        start_step,
        augment.reach_px,
        share,
    )


def _train_batches(
    images: Images,
    preprocess: Preprocess,
    sequence: ViewSequence,
    batch_size: int,
    step: int,
    reach_px: int,
    share: tuple[int, int],
) -> Iterator[Batch]:
    which, size = share[0], batch_size // share[1]
    while True:
        begin = step * batch_size + which * size
        views = sequence.between(begin, begin + size)
        pixels = images.pixels.index_select(0, views.index)
        if (
            preprocess.padding == "after-mean"
        ):  # Paper: the mean is subtracted first, so what is padded is exactly 0
            seen = crop_and_flip(preprocess.normalize(pixels), views, reach_px)
        else:
            seen = preprocess.normalize(crop_and_flip(pixels, views, reach_px))
        yield seen.permute(0, 3, 1, 2), images.labels.index_select(0, views.index)
        step += 1


def eval_batches(
    images: ImageSet,
    preprocess: Preprocess,
    *,
    batch_size: int = 500,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """Each image once, in order, as it is (the paper's single view; of a picture file the center); the last batch may be short.

    Raises:
        ValueError: for a batch size below 1.
        DataError: at the batch of a picture file that cannot be read, naming it.
    """
    check_position(batch_size, 0)
    on_device = preprocess.to(device)
    if isinstance(images, Files):
        return _eval_batches_of_files(images, on_device, batch_size, device)
    parts = (
        images.subset(start, min(start + batch_size, len(images))).to(device)
        for start in range(0, len(images), batch_size)
    )
    return ((on_device(part.pixels), part.labels) for part in parts)


def _eval_batches_of_files(
    files: Files, preprocess: Preprocess, batch_size: int, device: torch.device | str
) -> Iterator[Batch]:
    pictures = in_order(
        lambda index: torch.tensor(preprocess.read(files.path(index))),
        range(len(files)),
        ahead=batch_size,
    )
    for start in range(0, len(files), batch_size):
        labels = files.labels[start : start + batch_size]
        pixels = torch.stack([next(pictures) for _ in labels])
        yield preprocess(pixels.to(device)), labels.to(device)


def crop_and_flip(
    batch: Shaped[Tensor, "b h w c"], views: Views, reach_px: int
) -> Shaped[Tensor, "b h w c"]:
    """Zeros padded on each side, a window of the original size cut out, mirrored where the view says so: one gather of whole pixels."""
    num, height, width, channels = batch.shape
    padded = F.pad(batch, (0, 0, reach_px, reach_px, reach_px, reach_px))
    padded_height, padded_width = padded.shape[1:3]
    column = torch.arange(width, device=batch.device)
    columns = (
        torch.where(views.flip[:, None], width - 1 - column, column) + views.left[:, None]
    )  # [B, W]
    first_row = torch.arange(num, device=batch.device) * padded_height + views.top
    rows = first_row[:, None] + torch.arange(height, device=batch.device)  # [B, H]
    pixel = rows[:, :, None] * padded_width + columns[:, None, :]  # [B, H, W]
    return (
        padded.view(-1, channels).index_select(0, pixel.view(-1)).view(num, height, width, channels)
    )


def check_position(batch_size: int, start_step: int, share: tuple[int, int] = (0, 1)) -> None:
    """Refuse what no sequence of batches has."""
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size}: allowed are 1 and more")
    if start_step < 0:
        raise ValueError(f"start_step = {start_step}: allowed are 0 and more")
    which, of_how_many = share
    if not 0 <= which < of_how_many or batch_size % of_how_many:
        raise ValueError(
            f"batch_size = {batch_size} has no part {which} of {of_how_many} equal ones, counted from 0"
        )
