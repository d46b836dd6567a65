"""A recipe made ready to train: data, network and numerics. Whatever can be wrong with it is found here, before a file is written."""

import itertools
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reslearn import data, models, recipes
from reslearn.evaluate import Metrics, evaluate
from reslearn.runs import RunError
from reslearn.train import numerics
from reslearn.train.distributed import ALONE, Processes
from reslearn.train.initial_weights import Start, begin_from
from reslearn.train.numerics import Numerics

_EVALUATION_BATCH = 500
_EVALUATION_BATCH_OF_FILES = 100  # those are large
_MAX_WORKERS = 16  # beyond that they wait for the disk


@dataclass(kw_only=True)
class Prepared:
    """What one training works with."""

    recipe: recipes.Recipe
    dataset: data.ImageData
    data_dir: Path | None
    preprocess: data.Preprocess
    numerics: Numerics
    model: nn.Module
    complexity: models.Complexity
    num_steps: int
    start: Start | None
    augment: data.Augment | data.Jitter
    num_workers: int  # that read picture files
    processes: Processes = ALONE

    def train_batches(self, *, start_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented batches from `start_step` on, without end: this process's share of each."""
        train, recipe = self.dataset.train, self.recipe
        share = (self.processes.rank, self.processes.count)
        position: dict[str, Any] = {
            "batch_size": recipe.train.batch_size,
            "seed": recipe.seed,
            "start_step": start_step,
            "share": share,
        }
        if isinstance(self.augment, data.Augment):
            assert isinstance(train, data.Images)
            return data.train_batches(
                train,
                self.preprocess,
                **position,
                augment=self.augment,
                device=self.numerics.device,
            )
        return data.image_batches(
            train,
            self.preprocess.to(self.numerics.device),
            **position,
            augment=self.augment,
            num_workers=self.num_workers,
        )

    def batches(self, images: data.ImageSet) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in order, as evaluation sees it."""
        batch_size = (
            _EVALUATION_BATCH if isinstance(images, data.Images) else _EVALUATION_BATCH_OF_FILES
        )
        return data.eval_batches(
            images, self.preprocess, batch_size=batch_size, device=self.numerics.device
        )

    def evaluate(self, net: nn.Module, images: data.ImageSet) -> Metrics:
        """Loss and error of `net` on `images`, each counted once, by one of the processes."""
        self.processes.share_state(net)
        start, stop = (
            len(images) * number // self.processes.count
            for number in (self.processes.rank, self.processes.rank + 1)
        )
        return evaluate(
            net,
            self.batches(images.subset(start, stop)),
            autocast=self.numerics.autocast(),
            total=self.processes.sum,
        )

    def loss(self) -> nn.Module:
        """What is minimized."""
        return nn.CrossEntropyLoss(label_smoothing=self.recipe.train.label_smoothing)

    def steps_of(self, length: recipes.Length) -> int:
        """A length of training in steps."""
        return length.steps(
            num_images=len(self.dataset.train), batch_size=self.recipe.train.batch_size
        )

    @property
    def steps_per_epoch(self) -> float:
        return len(self.dataset.train) / self.recipe.train.batch_size


def prepare(
    recipe: recipes.Recipe,
    record: dict[str, Any] | None,
    *,
    device: str | None,
    threads: int | None,
    data_dir: Path | None,
    download: bool,
    workers: int | None = None,
    has_checkpoint: bool = False,
    processes: Processes = ALONE,
) -> Prepared:
    """Load the data, build the network and fix the numerics; with the `record` of an environment.json, those of that run, which
    may go on from a checkpoint.

    Raises DataError, UnknownModel, WeightsError, RunError (the record cannot be obeyed here) and ValueError.
    """
    dataset, options = _load(recipe, data_dir=data_dir, download=download), recipe.data
    if record is not None and record["data"]["fingerprint"] != dataset.fingerprint:
        raise RunError(
            f"the run began on other images than {recipe.data.name} holds now: start anew in another folder"
        )
    recipe = _fit_model_to_data(recipe, dataset)
    _check_shares(recipe, dataset, processes)
    torch.manual_seed(recipe.seed)
    model = models.build(**recipe.model.model_dump())
    start = begin_from(recipe, model, dataset, record, has_checkpoint=has_checkpoint)
    complexity = models.complexity(model, (dataset.channels, dataset.size_px, dataset.size_px))
    num_steps = recipe.schedule.duration.steps(
        num_images=len(dataset.train), batch_size=recipe.train.batch_size
    )
    if record is not None:
        chosen = numerics.obey(record, device=device, threads=threads, processes=processes.count)
    else:
        chosen = numerics.choose(
            recipe.train,
            device=numerics.choose_device(device),
            threads=threads,
            macs=complexity.macs,
            num_images=num_steps * recipe.train.batch_size,
            processes=processes.count,
        )
    numerics.prepare(chosen)
    prepared = Prepared(
        recipe=recipe,
        dataset=dataset,
        data_dir=data_dir,
        numerics=chosen,
        complexity=complexity,
        num_steps=num_steps,
        processes=processes,
        model=model.to(chosen.device).to(memory_format=torch.channels_last),  # type: ignore[call-overload]  # torch's stub lacks it
        preprocess=(start.preprocess if start else None) or _fit_preprocess(options, dataset),
        augment=_augment(options, dataset),
        num_workers=min(_MAX_WORKERS, os.cpu_count() or 1) if workers is None else workers,
        start=start,
    )
    _check_milestones(recipe, dataset)
    return prepared


def check_recipes(chosen: Iterable[recipes.Recipe], *, data_dir: Path | None) -> None:
    """Raise what `prepare` would for want of data, an unknown network or values that do not go together; data are loaded once."""
    loaded: dict[str, data.ImageData] = {}
    checked = set()
    for recipe in chosen:
        if (alike := recipe.model_copy(update={"seed": 0}).model_dump_json()) in checked:
            continue
        checked.add(alike)
        key = recipe.data.model_dump_json()
        loaded[key] = loaded.get(key) or _load(recipe, data_dir=data_dir, download=False)
        fitted = _fit_model_to_data(recipe, loaded[key])
        data.Preprocess.check(recipe.data.mean, recipe.data.std, loaded[key].channels)
        with torch.device("meta"):
            models.build(**fitted.model.model_dump())
        with warnings.catch_warnings(action="ignore"):  # the run itself says them
            _check_milestones(recipe, loaded[key])


def _load(recipe: recipes.Recipe, *, data_dir: Path | None, download: bool) -> data.ImageData:
    """The images of a recipe, held-out ones apart."""
    options = recipe.data
    dataset = data.load(
        options.name,
        data_dir=data_dir,
        download=download,
        size_px=options.size_px,
        stream=options.jitter is not None,
    )
    if options.jitter is not None and not isinstance(dataset.train, data.Files):
        raise ValueError(
            f"data.jitter resizes picture files, and {options.name} has none: give a folder of images, or data.jitter=none"
        )
    if options.validation_images:
        dataset = data.split(dataset, options.validation_images)
    if options.train_images is not None:
        if options.train_images > len(dataset.train):
            raise ValueError(
                f"data.train_images = {options.train_images:,}: {options.name} has {len(dataset.train):,} to train on"
            )
        dataset = replace(dataset, train=dataset.train.evenly_spaced(options.train_images))
    if isinstance(recipe.schedule, recipes.Plateau) and dataset.validation is None:
        raise ValueError(
            f'schedule.kind = "plateau" decides by validation images, and {options.name} has none: set data.validation_images'
        )
    return dataset


def _fit_preprocess(options: recipes.Data, dataset: data.ImageData) -> data.Preprocess:
    shorter_px = (
        None if options.jitter is None else data.scale_length(data.TEST_SHORTER_PX, dataset.size_px)
    )
    return data.Preprocess.fit(
        dataset.train,
        mean=options.mean,
        std=options.std,
        padding=options.padding,
        shorter_px=shorter_px,
    )


def _augment(options: recipes.Data, dataset: data.ImageData) -> data.Augment | data.Jitter:
    if options.jitter is None:
        return data.Augment(pad_px=options.pad_px, crop=options.crop, flip=options.flip)
    assert isinstance(dataset.train, data.Files)
    return data.Jitter.fit(
        dataset.train, shorter=options.jitter, flip=options.flip, color=options.colour
    )


def check_alike(prepared: Prepared) -> None:
    """RunError, on all processes, where one of them would compute otherwise than process 0: other images, another processor."""
    processes = prepared.processes
    mine = {**prepared.numerics.to_dict(), "data": prepared.dataset.fingerprint}
    first = processes.from_first(mine)

    def check() -> None:
        unlike = [f"{key} {mine[key]}, not {first[key]}" for key in mine if mine[key] != first[key]]
        if unlike:
            raise RunError(f"process {processes.rank} is unlike process 0: {'; '.join(unlike)}")

    processes.together(check)


def _fit_model_to_data(recipe: recipes.Recipe, dataset: data.ImageData) -> recipes.Recipe:
    spec = {"num_classes": len(dataset.classes), "in_channels": dataset.channels}
    given = {"num_classes": recipe.model.num_classes, "in_channels": recipe.model.in_channels}
    for key, value in given.items():
        if value not in (None, spec[key]):
            raise ValueError(
                f"model.{key} = {value}, but {recipe.data.name} has {spec[key]}: leave it out"
            )
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=spec)})


def _check_shares(recipe: recipes.Recipe, dataset: data.ImageData, processes: Processes) -> None:
    """Every process has its equal share of a batch, and of each set of images at least one."""
    train, count = recipe.train, processes.count
    if train.batch_size % (count * train.accumulate):
        parts = f", each in accumulate = {train.accumulate} parts" if train.accumulate > 1 else ""
        raise ValueError(
            f"train.batch_size = {train.batch_size} cannot be shared equally by {count} processes{parts}"
        )
    smallest = min(
        len(images)
        for images in (dataset.train, dataset.test, dataset.validation)
        if images is not None
    )
    if smallest < count:
        raise ValueError(
            f"{count} processes cannot share the {smallest} images of a part of {recipe.data.name}: take fewer"
        )
    if train.sync_batch_norm and count == 1:
        warnings.warn(
            "train.sync_batch_norm without effect, since there is one process", stacklevel=4
        )


def _check_milestones(recipe: recipes.Recipe, dataset: data.ImageData) -> None:
    """ValueError unless they rise also where epochs stand beside steps; a warning of those that come too late for any effect."""
    schedule, batch_size, num_images = recipe.schedule, recipe.train.batch_size, len(dataset.train)
    if isinstance(schedule, recipes.Stepwise):
        *steps, last = (
            length.steps(num_images=num_images, batch_size=batch_size)
            for length in (*schedule.milestones, schedule.duration)
        )
        if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
            given, found = (", ".join(map(str, each)) for each in (schedule.milestones, steps))
            raise ValueError(
                f"schedule.milestones = {given}: with {num_images:,} images in batches of {batch_size:,} those are steps {found}; "
                "each must be later than the one before it"
            )
        late = [
            str(milestone)
            for milestone, step in zip(schedule.milestones, steps, strict=True)
            if step >= last
        ]
        if late:
            text = f"schedule.milestones: {', '.join(late)} without effect, since the training ends after {schedule.duration}"
            warnings.warn(text, stacklevel=3)
