"""A complete run as the subject of an analysis: its networks at all saved steps, and its images.

Everything is read from the run folder, and computed in float32 on the CPU, for any run. The network
before the first step is available even without a snapshot, because it follows from recipe and seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from reslearn import data, models
from reslearn.interop import Bundle, read_bundle
from reslearn.runs import RunError, RunFolder, check_weights

Batch = tuple[Float32[Tensor, "b c h w"], Int64[Tensor, "b"]]

_EVALUATION_BATCH = 500
# Keys of the recipe in which two ends of a line may differ.
_MAY_DIFFER = ("name", "seed", "overrides", "evaluation")


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A complete run with its data.

    Attributes:
        folder: The run folder.
        recipe: The recipe of the run.
        preprocess: Preprocessing of the images.
        train: The images that the run was trained on, without its validation images.
        test: The test images.
    """

    folder: RunFolder
    recipe: Mapping[str, Any]
    preprocess: data.Preprocess
    train: data.ImageSet
    test: data.ImageSet

    @classmethod
    def open(cls, folder: RunFolder | Path | str, *, data_dir: Path | None = None) -> Subject:
        """Open a run folder and load its images.

        Args:
            folder: A complete run with its weights.
            data_dir: Folder of the data sets. Default: RESLEARN_DATA, then the cache.

        Raises:
            RunError: If the run is not complete, or has no weights.
            DataError: If its images are not available.
        """
        run = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
        _ = run.result  # raises RunError if the run is not complete, or was changed
        if not run.bundle_path.is_file():
            raise RunError(
                f"{run.path} has no model.safetensors: the weights of this run were not saved"
            )
        recipe = run.recipe
        options = recipe["data"]
        images = data.load(
            data.locate(options["name"], run=run.path, data_dir=data_dir),
            data_dir=data_dir,
            size_px=options["size_px"],
            stream=data.is_streamed(run.environment),
        )
        run.check_images(images.fingerprint)
        images = data.split(images, options["validation_images"])
        if options["train_images"] is not None:
            images = replace(images, train=images.train.evenly_spaced(options["train_images"]))
        preprocess = _read(run, run.bundle_path).preprocess
        return cls(
            folder=run, recipe=recipe, preprocess=preprocess, train=images.train, test=images.test
        )

    def network(self, step: int | None = None) -> models.Network:
        """Return the network after `step`, in evaluation mode.

        Args:
            step: Step of a snapshot, 0, or None for the trained network. Step 0 is built again if
                there is no snapshot.

        Raises:
            ValueError: If there is no snapshot of this step.
        """
        snapshots = self.folder.snapshots()
        if step is None:
            return _read(self.folder, self.folder.bundle_path).network
        if step in snapshots:
            return _read(self.folder, snapshots[step]).network
        if step == 0:
            return self.untrained()
        steps = ", ".join(map(str, sorted({0, *snapshots})))
        raise ValueError(
            f"step {step}: {self.folder.path} has the steps {steps} and the trained network"
        )

    def untrained(self, **switches: Any) -> models.Network:
        """Build the network as it was before the first step, from recipe and seed.

        The state of the global random generator is restored.

        Args:
            switches: Switches of `build`, as controls: they replace switches of the recipe.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe["seed"])
            return models.build(**{**self.recipe["model"], **switches}).eval()

    def moments(self) -> list[int | None]:
        """Return the available steps: 0, the snapshots, and None for the trained network."""
        last = int(self.folder.result["steps"])
        return [*sorted({0, *self.folder.snapshots()} - {last}), None]

    def step_of(self, moment: int | None) -> int:
        """Return the step of a moment; None means the last step."""
        return int(self.folder.result["steps"]) if moment is None else moment

    def batches(self, images: data.ImageSet) -> Iterator[Batch]:
        """Return batches of every image once, in order, preprocessed as for evaluation."""
        return data.eval_batches(images, self.preprocess, batch_size=_EVALUATION_BATCH)

    def training_batch(self, num_images: int) -> Batch:
        """Return one fixed batch of evenly spaced clean training images: x [B, C, H, W], y [B]."""
        images = self.train.evenly_spaced(num_images)
        return next(data.eval_batches(images, self.preprocess, batch_size=len(images)))


def check_same_recipe(first: Subject, second: Subject) -> None:
    """Check that two runs have the same recipe, except for seeds, names and evaluation.

    Raises:
        RunError: If the recipes differ.
    """
    recipes = [
        {key: value for key, value in subject.recipe.items() if key not in _MAY_DIFFER}
        for subject in (first, second)
    ]
    if recipes[0] == recipes[1]:
        return
    key, values = _first_difference(*recipes)
    if all(isinstance(value, Mapping) for value in values):
        subkey, values = _first_difference(*values)
        key = f"{key}.{subkey}"
    difference = " and ".join(json.dumps(value) for value in values)
    raise RunError(
        f"{second.folder.path} has another recipe than {first.folder.path}: "
        f"{key} = {difference}; only the seed may differ"
    )


def _read(run: RunFolder, path: Path) -> Bundle:
    check_weights(run, path)
    return read_bundle(path, recipe_hash=run.recipe_hash)


def _first_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, tuple[Any, Any]]:
    keys = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
    return keys[0], (a.get(keys[0]), b.get(keys[0]))
