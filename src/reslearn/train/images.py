"""The images of a recipe: loaded, normalized, augmented, in batches."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from reslearn import data, recipes

_MAX_WORKERS = 16  # more workers would wait for the disk


def load_images(recipe: recipes.Recipe, *, data_dir: Path | None, download: bool) -> data.ImageData:
    """Load the images of a recipe and hold out its validation images."""
    options = recipe.data
    has_crops = recipe.augment.crop_area is not None
    stream: bool | None = options.jitter is not None
    if has_crops:
        stream = {"memory": False, "disk": True, "auto": None}[options.store]
    dataset = data.load(
        options.name,
        data_dir=data_dir,
        download=download,
        size_px=options.size_px,
        stream=stream,
        keep_whole=has_crops,
    )
    if options.jitter is not None and not isinstance(dataset.train, data.Files):
        raise ValueError(
            f"data.jitter resizes image files, and {options.name} has none: "
            "name a folder of images, or set data.jitter=none"
        )
    if options.validation_images:
        dataset = data.split(dataset, options.validation_images)
    if options.train_images is not None:
        if options.train_images > len(dataset.train):
            raise ValueError(
                f"data.train_images = {options.train_images:,}, but {options.name} has only "
                f"{len(dataset.train):,} training images: set a smaller number"
            )
        dataset = replace(dataset, train=dataset.train.evenly_spaced(options.train_images))
    if isinstance(recipe.schedule, recipes.Plateau) and dataset.validation is None:
        raise ValueError(
            f'schedule.kind = "plateau" needs validation images, and {options.name} has none: '
            "set data.validation_images"
        )
    rests_on_validation = recipe.evaluation.early_stop is not None or recipe.evaluation.best
    if rests_on_validation and dataset.validation is None:
        raise ValueError(
            f"evaluation.early_stop and evaluation.best need validation images, and {options.name} "
            "has none: set data.validation_images"
        )
    return dataset


def fit_preprocess(options: recipes.Data, dataset: data.ImageData) -> data.Preprocess:
    """Fit the preprocessing of a recipe on the training images."""
    shorter_px = None
    if options.jitter is not None:
        shorter_px = data.scale_length(data.TEST_SHORTER_PX, dataset.size_px)
    return data.Preprocess.fit(
        dataset.train,
        mean=options.mean,
        std=options.std,
        padding=options.padding,
        shorter_px=shorter_px,
    )


def class_weights(dataset: data.ImageData) -> torch.Tensor:
    """Return the weight of each class in a balanced loss, float32 [K].

    It is the inverse of the number of training images, scaled so that the mean over the training
    images is 1. A class without training images has weight 0.
    """
    counts = torch.bincount(dataset.train.labels, minlength=len(dataset.classes))
    num_present = int((counts > 0).sum())
    weights = len(dataset.train) / num_present / counts.clamp(min=1)
    return torch.where(counts > 0, weights, 0.0).float()


AnyAugment: TypeAlias = data.Augment | data.PhotoAugment | data.Jitter


def choose_augmentation(recipe: recipes.Recipe, dataset: data.ImageData) -> AnyAugment:
    """Return the augmentation that a recipe asks for."""
    options = recipe.data
    if options.jitter is None:
        base = data.Augment(
            pad_px=options.pad_px,
            crop=options.crop,
            flip=options.flip,
            balance=options.sampling == "balanced",
        )
        if recipe.augment.is_off:
            return base
        return data.PhotoAugment(
            **recipe.augment.model_dump(), base=base, num_classes=len(dataset.classes)
        )
    assert isinstance(dataset.train, data.Files)
    return data.Jitter.fit(
        dataset.train, shorter=options.jitter, flip=options.flip, color=options.colour
    )


def augmented_batches(
    images: data.ImageSet,
    preprocess: data.Preprocess,
    augment: AnyAugment,
    *,
    workers: int | None,
    **options: Any,
) -> Iterator[data.SoftBatch]:
    """Return an endless iterator over augmented batches, on the device of `preprocess`.

    Args:
        workers: Processes that read image files. None: one per core, at most 16.
        **options: Arguments of `data.train_batches`: batch_size, seed, start_step and share.
    """
    if isinstance(augment, data.Augment):
        assert isinstance(images, data.Images)
        return data.train_batches(
            images, preprocess, augment=augment, device=preprocess.device, **options
        )
    if workers is None:
        workers = min(_MAX_WORKERS, os.cpu_count() or 1)
    if isinstance(augment, data.PhotoAugment):
        return data.photo_batches(
            images,
            preprocess,
            augment=augment,
            num_workers=workers,
            **options,
        )
    return data.image_batches(images, preprocess, augment=augment, num_workers=workers, **options)
