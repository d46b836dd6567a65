"""Images to batches: sources, order and augmentation as pure functions of (seed, epoch, index), one `Preprocess` object, loaders."""

from reslearn.data.batches import Batch, eval_batches, train_batches
from reslearn.data.dataset import ImageData, ImageSet, split
from reslearn.data.errors import DataError, UnknownData
from reslearn.data.files import Files
from reslearn.data.images import Images
from reslearn.data.jitter import Jitter
from reslearn.data.per_image import ViewsByPosition, image_batches
from reslearn.data.pictures import TEST_SHORTER, in_proportion, read_picture
from reslearn.data.preprocess import Preprocess
from reslearn.data.sources import load, names
from reslearn.data.views import Augment

__all__ = [
    "TEST_SHORTER",
    "Augment",
    "Batch",
    "DataError",
    "Files",
    "ImageData",
    "ImageSet",
    "Images",
    "Jitter",
    "Preprocess",
    "UnknownData",
    "ViewsByPosition",
    "eval_batches",
    "image_batches",
    "in_proportion",
    "load",
    "names",
    "read_picture",
    "split",
    "train_batches",
]
