"""What an analysis looks at: a finished run's network at any step that was kept, and the images that it saw.

Everything is read from the run folder and computed in float32 on the CPU, whatever the run was trained on. A random net of the
same shape (the start of the run) can be had even where the recipe kept no snapshot of step 0: it follows from recipe and seed.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from reslearn import data, models
from reslearn.interop import read_bundle
from reslearn.runs import RunError, RunFolder, to_json_value

Batch = tuple[Float32[Tensor, "b c h w"], Int64[Tensor, "b"]]

_EVALUATION_BATCH = 500
_MAY_DIFFER = (
    "name",
    "seed",
    "overrides",
    "evaluation",
)  # of two runs between which a line is drawn


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A run with its data. `train` are the images that the run was trained on, not those it set aside."""

    folder: RunFolder
    recipe: Mapping[str, Any]
    preprocess: data.Preprocess
    train: data.ImageSet
    test: data.ImageSet

    @classmethod
    def open(cls, folder: RunFolder | Path | str, *, data_dir: Path | None = None) -> "Subject":
        """RunError where `folder` is no complete run or its weights were left out; DataError where its images are not to be had."""
        run = folder if isinstance(folder, RunFolder) else RunFolder.open(folder)
        if not run.is_complete:
            raise RunError(f"{run.path} is not complete: reslearn train --resume --out {run.path}")
        if not run.bundle_path.is_file():
            raise RunError(
                f"{run.path} has no model.safetensors: the weights of this run were not kept"
            )
        recipe = run.recipe
        options = recipe["data"]
        images = data.load(
            options["name"],
            data_dir=data_dir,
            size_px=options["size_px"],
            stream=options.get("jitter") is not None,
        )
        run.check_images(images.fingerprint)
        images = data.split(images, options["validation_images"])
        if options["train_images"] is not None:
            images = replace(images, train=images.train.evenly_spaced(options["train_images"]))
        preprocess = read_bundle(run.bundle_path, recipe_hash=run.recipe_hash).preprocess
        return cls(
            folder=run, recipe=recipe, preprocess=preprocess, train=images.train, test=images.test
        )

    def network(self, step: int | None = None) -> models.Network:
        """The network after `step`, the trained one where None, in evaluation mode.

        Step 0 is rebuilt where no snapshot holds it. ValueError for a step that was not kept.
        """
        kept = self.folder.snapshots()
        if step is None:
            return read_bundle(self.folder.bundle_path, recipe_hash=self.folder.recipe_hash).network
        if step in kept:
            return read_bundle(kept[step], recipe_hash=self.folder.recipe_hash).network
        if step == 0:
            return self.untrained()
        raise ValueError(
            f"step {step}: {self.folder.path} keeps {', '.join(map(str, sorted({0, *kept})))} and the trained network"
        )

    def untrained(self, **switches: Any) -> models.Network:
        """The network as it was before the first step, from recipe and seed; `switches` of `build` make it another, as a control.

        The global generator is put back.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe["seed"])
            return models.build(**{**self.recipe["model"], **switches}).eval()

    def moments(self) -> list[int | None]:
        """Steps at which the network can be had: 0, the snapshots, and None for the trained network."""
        last = int(self.folder.result["steps"])
        return [*sorted({0, *self.folder.snapshots()} - {last}), None]

    def step_of(self, moment: int | None) -> int:
        """The number of the step of a moment: that of the last for None."""
        return int(self.folder.result["steps"]) if moment is None else moment

    def batches(self, images: data.ImageSet) -> Iterator[Batch]:
        """Every image once, in order, as evaluation sees it."""
        return data.eval_batches(images, self.preprocess, batch_size=_EVALUATION_BATCH)

    def training_batch(self, num_images: int) -> Batch:
        """One fixed batch of clean training images, evenly spaced over all (x [B, C, H, W], y [B])."""
        images = self.train.evenly_spaced(num_images)
        return next(data.eval_batches(images, self.preprocess, batch_size=len(images)))


def check_same_recipe(one: Subject, other: Subject) -> None:
    """RunError unless both runs are of one recipe: their seeds, their names and what was recorded of them may differ."""
    ours, theirs = (
        {key: value for key, value in subject.recipe.items() if key not in _MAY_DIFFER}
        for subject in (one, other)
    )
    different = sorted(
        key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)
    )
    if different:
        first = different[0]
        told = f"{first} = {json.dumps(ours.get(first))} and {json.dumps(theirs.get(first))}"
        if isinstance(ours.get(first), Mapping) and isinstance(theirs.get(first), Mapping):
            keys = sorted(
                key
                for key in ours[first].keys() | theirs[first].keys()
                if ours[first].get(key) != theirs[first].get(key)
            )
            told = f"{first}.{keys[0]} = {json.dumps(ours[first].get(keys[0]))} and {json.dumps(theirs[first].get(keys[0]))}"
        raise RunError(
            f"{other.folder.path} is no other run of the recipe of {one.folder.path}: {told}; only the seed may differ"
        )


def write_analysis(folder: RunFolder, name: str, value: Mapping[str, Any]) -> Path:
    """`RunFolder.write_analysis` of the value as JSON; values that are not finite become null. Returns the path."""
    return folder.write_analysis(name, to_json_value(value))
