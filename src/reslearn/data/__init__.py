"""Images to batches: sources, order and augmentation as pure functions of (seed, epoch, index), one `Preprocess` object, loaders."""

from reslearn.data.batches import Batch, eval_batches, train_batches
from reslearn.data.errors import DataError, UnknownData
from reslearn.data.folder import read_picture
from reslearn.data.images import Dataset, Images, split
from reslearn.data.per_image import ViewsByPosition, image_batches
from reslearn.data.preprocess import Preprocess
from reslearn.data.sources import load, names
from reslearn.data.views import Augment

__all__ = [
    "Augment",
    "Batch",
    "DataError",
    "Dataset",
    "Images",
    "Preprocess",
    "UnknownData",
    "ViewsByPosition",
    "eval_batches",
    "image_batches",
    "load",
    "names",
    "read_picture",
    "split",
    "train_batches",
]
