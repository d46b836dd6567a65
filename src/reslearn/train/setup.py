"""Set up a recipe for training: data, network, precision and preprocessing.

Every mistake that can be found before training is found here, before a file is written.
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reslearn import data, models, recipes
from reslearn.evaluate import Metrics, evaluate, fit_temperature, predict
from reslearn.progress import track
from reslearn.runs import RunError
from reslearn.train import numerics
from reslearn.train.batch_norm import check_values_per_channel
from reslearn.train.distributed import ALONE, Processes
from reslearn.train.freezing import freeze_stages
from reslearn.train.images import (
    AnyAugment,
    augmented_batches,
    choose_augmentation,
    class_weights,
    fit_preprocess,
    load_images,
)
from reslearn.train.initial_weights import InitialWeights, load_initial_weights
from reslearn.train.learning_rate import build_learning_rate, check_milestones
from reslearn.train.loop import Batch, LoopSetup, StopRequest
from reslearn.train.numerics import Numerics
from reslearn.train.optimizer import build_optimizer
from reslearn.train.selection import Selection
from reslearn.train.step import Meter, State, WeightAverage, make_step
from reslearn.train.time_limit import TimeLimit

_EVALUATION_BATCH = 500
_EVALUATION_BATCH_OF_FILES = 100  # image files are large


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The hardware and the files that a command may use.

    Attributes:
        device: "cpu", "cuda" or "cuda:N". None: CUDA if there is a GPU, else the CPU.
        threads: CPU threads. None: all cores.
        data_dir: The folder of the datasets. None: RESLEARN_DATA, then the cache.
        download: Download a dataset that is missing.
        workers: Processes that read image files. None: one per core, at most 16. Batches do not
            depend on it.
    """

    device: str | None = None
    threads: int | None = None
    data_dir: Path | None = None
    download: bool = False
    workers: int | None = None


THIS_MACHINE = Machine()


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    """What one run works with."""

    recipe: recipes.Recipe
    machine: Machine
    dataset: data.ImageData
    preprocess: data.Preprocess
    augment: AnyAugment
    numerics: Numerics
    model: nn.Module
    complexity: models.Complexity
    initial_weights: InitialWeights | None = None
    processes: Processes = ALONE

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_of(self.recipe.schedule.duration)

    @property
    def steps_per_epoch(self) -> float:
        """Steps that see as many images as the training set has."""
        return len(self.dataset.train) / self.recipe.train.batch_size

    def steps_of(self, length: recipes.Length) -> int:
        """Convert a length of training to steps."""
        return length.steps(
            num_images=len(self.dataset.train), batch_size=self.recipe.train.batch_size
        )

    def initial_state(self) -> State:
        """Create the state at step 0."""
        train, device = self.recipe.train, self.numerics.device
        init = self.recipe.init
        return State(
            model=self.model,
            optimizer=build_optimizer(
                self.model,
                self.recipe.optimizer,
                layer_lr_decay=1.0 if init is None else init.layer_lr_decay,
            ),
            learning_rate=build_learning_rate(self.recipe.schedule, self.steps_of),
            average=WeightAverage(self.model, decay=train.ema),
            meter=Meter(every=train.read_every_steps, device=device, processes=self.processes),
            selection=Selection(
                patience=self.recipe.evaluation.early_stop,
                keeps_weights=self.recipe.evaluation.best,
            ),
        )

    def loop_setup(
        self, state: State, stop: StopRequest, time_limit: TimeLimit | None = None
    ) -> LoopSetup:
        """Create what the loop needs to continue from `state`."""
        recipe = self.recipe
        step = make_step(
            self.model,
            self.loss(),
            state.optimizer,
            numerics=self.numerics,
            accumulate=recipe.train.accumulate,
            processes=self.processes,
            sync_batch_norm=recipe.train.sync_batch_norm and self.processes.count > 1,
        )
        return LoopSetup(
            step=step,
            batches=self.train_batches(start_step=state.step),
            num_steps=self.num_steps,
            evaluations=self._evaluations(),
            evaluate_every_steps=self.steps_of(recipe.evaluation.every),
            snapshot_steps=frozenset(map(self.steps_of, recipe.evaluation.snapshots)),
            checkpoint_every_seconds=recipe.train.checkpoint_every_seconds,
            processes=self.processes,
            stop=stop,
            time_limit=time_limit,
        )

    def loss(self) -> nn.Module:
        """Create the loss that is minimized."""
        train = self.recipe.train
        weight = None
        if train.class_weights == "balanced":
            weight = class_weights(self.dataset).to(self.numerics.device)
        return nn.CrossEntropyLoss(weight=weight, label_smoothing=train.label_smoothing)

    def train_batches(self, *, start_step: int) -> Iterator[Batch]:
        """Yield augmented batches from `start_step` on, without end: the share of this process."""
        return augmented_batches(
            self.dataset.train,
            self.preprocess.to(self.numerics.device),
            self.augment,
            workers=self.machine.workers,
            batch_size=self.recipe.train.batch_size,
            seed=self.recipe.seed,
            start_step=start_step,
            share=(self.processes.rank, self.processes.count),
        )

    def evaluation_batches(self, images: data.ImageSet, purpose: str) -> Iterator[Batch]:
        """Yield every image once, in order, without augmentation. `purpose` is shown with them."""
        in_memory = isinstance(images, data.Images)
        size = _EVALUATION_BATCH if in_memory else _EVALUATION_BATCH_OF_FILES
        device = self.numerics.device
        batches = data.eval_batches(images, self.preprocess, batch_size=size, device=device)
        return track(batches, purpose, len(images))

    def evaluate(self, network: nn.Module, images: data.ImageSet) -> Metrics:
        """Evaluate `network` on `images`. Each process evaluates its share of them."""
        names = {id(self.dataset.test): "test", id(self.dataset.validation): "validation"}
        purpose = f"evaluating on {names.get(id(images), 'training')} images"
        self.processes.broadcast_buffers(network)
        return evaluate(
            network,
            self.evaluation_batches(self._share(images), purpose),
            autocast=self.numerics.autocast(),
            total=self.processes.sum,
        )

    def fit_temperature(self, network: nn.Module) -> float | None:
        """Fit the temperature of the probabilities on the validation images.

        Returns:
            None without validation images, or where `fit_temperature` finds no temperature.
        """
        images, device = self.dataset.validation, self.numerics.device
        if images is None:
            return None
        batches = self.evaluation_batches(self._share(images), "fitting the temperature")
        predictions = predict(network, batches, autocast=self.numerics.autocast)
        logits, labels = predictions.logits.to(device), predictions.labels.to(device)
        return fit_temperature(logits, labels, total=self.processes.sum)

    def _share(self, images: data.ImageSet) -> data.ImageSet:
        """Return the images that this process evaluates."""
        rank, count = self.processes.rank, self.processes.count
        return images.subset(len(images) * rank // count, len(images) * (rank + 1) // count)

    def _evaluations(self) -> dict[str, partial[Metrics]]:
        """Return the evaluations during training. The test error is only recorded, never read."""
        evaluations = {}
        if self.dataset.validation is not None:
            evaluations["validation"] = partial(self.evaluate, images=self.dataset.validation)
        if self.recipe.evaluation.test_curve:
            evaluations["test"] = partial(self.evaluate, images=self.dataset.test)
        return evaluations


def set_up(
    recipe: recipes.Recipe,
    machine: Machine = THIS_MACHINE,
    *,
    environment: dict[str, Any] | None = None,
    has_checkpoint: bool = False,
    processes: Processes = ALONE,
) -> RunSetup:
    """Load the data, build the network and choose the numerics.

    Args:
        recipe: What to train.
        machine: Where to train it.
        environment: environment.json of a run that has begun. Its numerics are used again.
        has_checkpoint: Whether that run has a checkpoint, so that its initial weights are not
            needed.
        processes: The processes that train together.

    Raises:
        DataError: If the data are missing or damaged.
        UnknownModelError: If there is no network of that name.
        WeightsError: If the initial weights cannot be used.
        RunError: If the run began with other images or with numerics that are not available here.
        ValueError: If values of the recipe exclude each other.
    """
    dataset = load_images(recipe, data_dir=machine.data_dir, download=machine.download)
    _check_same_images(recipe, dataset, environment)
    recipe = _fit_model_to_data(recipe, dataset)
    _check_shares(recipe, dataset, processes)
    model = _build_model(recipe, dataset, processes)
    initial_weights = None
    if recipe.init is not None:
        initial_weights = load_initial_weights(
            recipe, model, dataset, environment, has_checkpoint=has_checkpoint
        )
        freeze_stages(model, recipe.init.frozen_stages)
    complexity = models.complexity(model, (dataset.channels, dataset.size_px, dataset.size_px))
    chosen = _choose_numerics(recipe, machine, environment, processes, dataset, complexity)
    numerics.prepare(chosen)
    # torch's stub lacks the argument memory_format.
    model.to(chosen.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    preprocess = initial_weights.preprocess if initial_weights is not None else None
    setup = RunSetup(
        recipe=recipe,
        machine=machine,
        dataset=dataset,
        preprocess=preprocess or fit_preprocess(recipe.data, dataset),
        augment=choose_augmentation(recipe, dataset),
        numerics=chosen,
        model=model,
        complexity=complexity,
        initial_weights=initial_weights,
        processes=processes,
    )
    check_milestones(recipe, len(dataset.train))
    return setup


def _check_same_images(
    recipe: recipes.Recipe, dataset: data.ImageData, environment: dict[str, Any] | None
) -> None:
    if environment is not None and environment["data"]["fingerprint"] != dataset.fingerprint:
        raise RunError(
            f"{recipe.data.name} holds other images now than when the run began: "
            "start again in another folder"
        )


def check_recipes(chosen: Iterable[recipes.Recipe], machine: Machine = THIS_MACHINE) -> None:
    """Raise what `set_up` would raise for missing data, unknown networks or wrong values.

    Recipes that differ only in their seed are checked once, and each dataset is loaded once.
    Nothing is downloaded.
    """
    datasets: dict[str, data.ImageData] = {}
    checked = set()
    for recipe in chosen:
        without_seed = recipe.model_copy(update={"seed": 0}).model_dump_json()
        if without_seed in checked:
            continue
        checked.add(without_seed)
        key = recipe.data.model_dump_json()
        if key not in datasets:
            datasets[key] = load_images(recipe, data_dir=machine.data_dir, download=False)
        dataset = datasets[key]
        fitted = _fit_model_to_data(recipe, dataset)
        data.Preprocess.check(recipe.data.mean, recipe.data.std, dataset.channels)
        with torch.device("meta"):
            models.build(**fitted.model.model_dump())
        with warnings.catch_warnings(action="ignore"):  # the run itself warns
            check_milestones(recipe, len(dataset.train))


def check_processes_agree(setup: RunSetup) -> None:
    """Raise RunError on all processes if one has other images or numerics than process 0."""
    processes = setup.processes
    facts = {**setup.numerics.to_dict(), "data": setup.dataset.fingerprint}
    first = processes.broadcast(facts)

    def check() -> None:
        keys = [key for key in facts if facts[key] != first[key]]
        if keys:
            differences = "; ".join(f"{key} {facts[key]}, not {first[key]}" for key in keys)
            raise RunError(f"process {processes.rank} differs from process 0: {differences}")

    processes.run_together(check)


def _choose_numerics(
    recipe: recipes.Recipe,
    machine: Machine,
    environment: dict[str, Any] | None,
    processes: Processes,
    dataset: data.ImageData,
    complexity: models.Complexity,
) -> Numerics:
    if environment is not None:
        return numerics.obey(
            environment, device=machine.device, threads=machine.threads, processes=processes.count
        )
    batch_size = recipe.train.batch_size
    num_steps = recipe.schedule.duration.steps(num_images=len(dataset.train), batch_size=batch_size)
    return numerics.choose(
        recipe.train,
        device=numerics.choose_device(machine.device),
        threads=machine.threads,
        macs=complexity.macs,
        num_images=num_steps * batch_size,
        processes=processes.count,
    )


def _fit_model_to_data(recipe: recipes.Recipe, dataset: data.ImageData) -> recipes.Recipe:
    """Set the numbers of classes and channels, which the data determine."""
    spec = {"num_classes": len(dataset.classes), "in_channels": dataset.channels}
    for key, value in spec.items():
        requested = getattr(recipe.model, key)
        if requested not in (None, value):
            raise ValueError(
                f"model.{key} = {requested}, but {recipe.data.name} has {value}: remove the setting"
            )
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=spec)})


def _build_model(
    recipe: recipes.Recipe, dataset: data.ImageData, processes: Processes
) -> models.Network:
    """Build the network of a recipe, and check that batch norm works with its batches."""
    torch.manual_seed(recipe.seed)
    model = models.build(**recipe.model.model_dump())
    train = recipe.train
    num_parts = train.accumulate * (1 if train.sync_batch_norm else processes.count)
    shape = (dataset.channels, dataset.size_px, dataset.size_px)
    check_values_per_channel(model, shape, batch_size=train.batch_size, num_parts=num_parts)
    return model


def _check_shares(recipe: recipes.Recipe, dataset: data.ImageData, processes: Processes) -> None:
    """Check that processes can share every batch equally and that every set has enough images."""
    train, count = recipe.train, processes.count
    if train.batch_size % (count * train.accumulate):
        parts = f", each in accumulate = {train.accumulate} parts" if train.accumulate > 1 else ""
        raise ValueError(
            f"train.batch_size = {train.batch_size} cannot be shared equally by {count} "
            f"processes{parts}: set a multiple of {count * train.accumulate}"
        )
    sets = [dataset.train, dataset.test]
    if dataset.validation is not None:
        sets.append(dataset.validation)
    smallest = min(map(len, sets))
    if smallest < count:
        raise ValueError(
            f"{count} processes cannot share the {smallest} images of a set of "
            f"{recipe.data.name}: use fewer processes"
        )
    if train.sync_batch_norm and count == 1:
        warnings.warn(
            "train.sync_batch_norm has no effect, since there is only one process", stacklevel=4
        )
