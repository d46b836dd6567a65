"""A recipe made ready to train: data, network and numerics. Whatever can be wrong with it is found here, before a file is written."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reslearn import data, models, recipes
from reslearn.evaluate import Metrics, evaluate
from reslearn.runs import RunError
from reslearn.train import numerics
from reslearn.train.numerics import Numerics
from reslearn.train.start import Start, begin_from

_EVALUATION_BATCH = 500


@dataclass(kw_only=True)
class Prepared:
    """What one training works with."""

    recipe: recipes.Recipe
    dataset: data.Dataset
    data_dir: Path | None
    preprocess: data.Preprocess
    numerics: Numerics
    model: nn.Module
    complexity: models.Complexity
    num_steps: int
    start: Start | None

    def train_batches(self, *, start_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented batches from `start_step` on, without end."""
        augment = data.Augment(pad_px=self.recipe.data.pad_px, crop=self.recipe.data.crop, flip=self.recipe.data.flip)
        return data.train_batches(
            self.dataset.train, self.preprocess, batch_size=self.recipe.train.batch_size, seed=self.recipe.seed, start_step=start_step,
            augment=augment, device=self.numerics.device,
        )  # fmt: skip

    def batches(self, images: data.Images) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in order, as evaluation sees it."""
        return data.eval_batches(images, self.preprocess, batch_size=_EVALUATION_BATCH, device=self.numerics.device)

    def evaluate(self, net: nn.Module, images: data.Images) -> Metrics:
        """Loss and error of `net` on `images`."""
        return evaluate(net, self.batches(images), autocast=self.numerics.autocast())

    def loss(self) -> nn.Module:
        """What is minimised."""
        return nn.CrossEntropyLoss(label_smoothing=self.recipe.train.label_smoothing)

    def steps_of(self, length: recipes.Length) -> int:
        """A length of training in steps."""
        return length.steps(num_images=len(self.dataset.train), batch_size=self.recipe.train.batch_size)

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
) -> Prepared:
    """Load the data, build the network and fix the numerics; with the `record` of an environment.json, those of that run.

    Raises DataError, UnknownModel, WeightsError, RunError (the record cannot be obeyed here) and ValueError.
    """
    dataset = data.load(recipe.data.name, data_dir=data_dir, download=download, size_px=recipe.data.size_px)
    if recipe.data.validation_images:
        dataset = data.split(dataset, recipe.data.validation_images)
    if recipe.data.train_images is not None:
        dataset = replace(dataset, train=dataset.train.spread(recipe.data.train_images))
    recipe = _fit_model_to_data(recipe, dataset)
    torch.manual_seed(recipe.seed)
    model = models.build(**recipe.model.model_dump())
    start = begin_from(recipe, model, dataset, record)
    complexity = models.complexity(model, (dataset.channels, dataset.size_px, dataset.size_px))
    num_steps = recipe.schedule.duration.steps(num_images=len(dataset.train), batch_size=recipe.train.batch_size)
    if record is not None:
        chosen = numerics.obey(record, device=device, threads=threads)
    else:
        chosen = numerics.choose(
            recipe.train, device=numerics.choose_device(device), threads=threads, macs=complexity.macs,
            num_images=num_steps * recipe.train.batch_size,
        )  # fmt: skip
    numerics.prepare(chosen)
    prepared = Prepared(
        recipe=recipe, dataset=dataset, data_dir=data_dir, numerics=chosen, complexity=complexity, num_steps=num_steps,
        model=model.to(chosen.device).to(memory_format=torch.channels_last),  # type: ignore[call-overload]  # torch's stub lacks it
        preprocess=(start.preprocess if start else None)
        or data.Preprocess.fit(dataset.train, mean=recipe.data.mean, std=recipe.data.std, padding=recipe.data.padding),
        start=start,
    )  # fmt: skip
    if record is not None and record["data"]["fingerprint"] != dataset.fingerprint:
        raise RunError(f"the run began on other images than {recipe.data.name} holds now: start anew in another folder")
    _warn_of_milestones_without_effect(prepared)
    return prepared


def _fit_model_to_data(recipe: recipes.Recipe, dataset: data.Dataset) -> recipes.Recipe:
    spec = {"num_classes": len(dataset.classes), "in_channels": dataset.channels}
    given = {"num_classes": recipe.model.num_classes, "in_channels": recipe.model.in_channels}
    for key, value in given.items():
        if value not in (None, spec[key]):
            raise ValueError(f"model.{key} = {value}, but {recipe.data.name} has {spec[key]}: leave it out")
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=spec)})


def _warn_of_milestones_without_effect(prepared: Prepared) -> None:
    schedule = prepared.recipe.schedule
    if isinstance(schedule, recipes.Stepwise):
        late = [str(milestone) for milestone in schedule.milestones if prepared.steps_of(milestone) >= prepared.num_steps]
        if late:
            text = f"schedule.milestones: {', '.join(late)} without effect, since the training ends after {schedule.duration}"
            warnings.warn(text, stacklevel=3)
