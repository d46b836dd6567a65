"""Images to batches: sources, augmentation as a pure function of (seed, step), and loaders."""

from reslearn.data.batches import Augment, Batch, eval_batches, permutation, train_batches
from reslearn.data.contact_sheet import contact_sheet
from reslearn.data.download import DataStatus, download, status
from reslearn.data.errors import DataError, UnknownDataError
from reslearn.data.files import Files
from reslearn.data.images import ImageData, Images, ImageSet, is_streamed, split
from reslearn.data.jitter import Jitter
from reslearn.data.per_image import image_batches
from reslearn.data.photo_batches import SoftBatch, photo_batches
from reslearn.data.photo_views import PhotoAugment
from reslearn.data.pictures import TEST_SHORTER_PX, read_picture, scale_length
from reslearn.data.preprocess import Preprocess
from reslearn.data.sources import is_image_folder, load, locate, names

__all__ = [
    "TEST_SHORTER_PX",
    "Augment",
    "Batch",
    "DataError",
    "DataStatus",
    "Files",
    "ImageData",
    "ImageSet",
    "Images",
    "Jitter",
    "PhotoAugment",
    "Preprocess",
    "SoftBatch",
    "UnknownDataError",
    "contact_sheet",
    "download",
    "eval_batches",
    "image_batches",
    "is_image_folder",
    "is_streamed",
    "load",
    "locate",
    "names",
    "permutation",
    "photo_batches",
    "read_picture",
    "scale_length",
    "split",
    "status",
    "train_batches",
]
