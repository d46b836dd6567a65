"""A source, loaded: its classes and its sets of images, in memory (`Images`) or on disk (`Files`), which loaders take alike."""

from dataclasses import dataclass, replace

from reslearn.data.errors import DataError
from reslearn.data.files import Files
from reslearn.data.images import Images

ImageSet = Images | Files


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """A source, loaded. `validation` is None unless a folder brings its own or `split` made one."""

    name: str
    classes: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    validation: ImageSet | None = None
    fingerprint: str  # of the source as loaded: `split` does not change it

    @property
    def size_px(self) -> int:
        return self.train.size_px

    @property
    def channels(self) -> int:
        return self.train.channels


def split(dataset: ImageData, validation_images: int) -> ImageData:
    """The last `validation_images` training images become the validation images (Sec. 4.2: 45k/5k); 0 leaves all as it is.

    Raises:
        DataError: where nothing would be left to train on, or the data bring validation images of their own.
    """
    if validation_images == 0:
        return dataset
    if dataset.validation is not None:
        raise DataError(
            f"validation_images = {validation_images}: {dataset.name} brings {len(dataset.validation)} of its own; 0 uses them"
        )
    num_train = len(dataset.train)
    if not 0 < validation_images < num_train:
        allowed = (
            f"{dataset.name} has {num_train} training images; allowed are 0 to {num_train - 1}"
        )
        raise DataError(f"validation_images = {validation_images}: {allowed}")
    kept = num_train - validation_images
    return replace(
        dataset,
        train=dataset.train.subset(0, kept),
        validation=dataset.train.subset(kept, num_train),
    )
