"""Errors of choices on training images: `TrialImages` reads them, `ChoiceMeasure` computes.

Shapes: N images, K classes.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reslearn import data, models
from reslearn.evaluate import select
from reslearn.evaluate.class_metrics import Integers
from reslearn.evaluate.race import Losses, Misses, is_above_chance
from reslearn.interop import Identity, load_network
from reslearn.interop.as_bundle import InputOptions, foreign_preprocess
from reslearn.interop.open_choices import InputChoice, InputStatistics
from reslearn.models import Network

# About ten seconds of two processor cores for small networks, which compute 2e10 a second, and less
# for large ones.
BUDGET_MACS = 2e11
_MOST_IMAGES = 2_000
_MOST_FITTED_FILES = 300
_IMAGES_FOR_ORDER = 500
_IMAGES_PER_CLASS = 4
_MAX_BATCH = 250
_LARGEST_LOSS = 1e3


class TrialImages:
    """Training images in a random order, read when they are needed, at each size."""

    def __init__(self, name: str, data_dir: Path | None) -> None:
        self._name, self._data_dir = name, data_dir
        self._sets: dict[int, data.ImageSet] = {}
        self._pixels: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}
        dataset = self._load(None)
        self.classes, self.channels = dataset.classes, dataset.channels
        is_folder = data.is_image_folder(name, data_dir)
        self.size_px = None if is_folder else dataset.size_px
        self._order = data.permutation(0, 0, len(dataset.train))[:_MOST_IMAGES]
        self._labels = dataset.train.labels[self._order]
        self._all = dataset.train

    def __len__(self) -> int:
        return len(self._order)

    def largest_share(self, num_images: int) -> float:
        """Return the share of the most frequent class among the first images, from 0 to 1."""
        return float(self._labels[:num_images].bincount().max() / num_images)

    def statistics(self) -> list[InputStatistics]:
        """Return mean and deviation of the images, by channel and with one deviation for all."""
        images = self._all
        if isinstance(images, data.Files):
            images = images.select(self._order).evenly_spaced(_MOST_FITTED_FILES)
        name = f"images of {self._name}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the evaluation reports unreadable pictures
            by_channel = data.Preprocess.fit(images, mean="per-channel", std="per-channel")
            pooled = data.Preprocess.fit(images, mean="per-channel", std="scalar")
        return [_statistics(name, by_channel), _statistics(f"{name}, one deviation", pooled)]

    def pixels(self, preprocess: data.Preprocess, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return the pixels, uint8 [n, H, W, C], and labels [n] of images `start` to `stop - 1`."""
        key = (preprocess.size_px, start, stop)
        if key not in self._pixels:
            for earlier in [each for each in self._pixels if each[1:] != key[1:]]:
                del self._pixels[earlier]
            self._pixels[key] = self._read(preprocess, start, stop)
        return self._pixels[key]

    def _read(self, preprocess: data.Preprocess, start: int, stop: int) -> tuple[Tensor, Tensor]:
        size_px, channels = preprocess.size_px, preprocess.channels
        if size_px not in self._sets:
            self._sets[size_px] = select(self._load(size_px).train, self._order)
        images = self._sets[size_px].subset(start, stop)
        if isinstance(images, data.Images):
            return images.pixels, images.labels
        # A mean of 0 and a scale of 1 leave the pixels as they are read.
        unchanged = replace(preprocess, mean=torch.zeros(channels), scale=torch.ones(channels))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batches = list(data.eval_batches(images, unchanged, batch_size=_MAX_BATCH))
        pixels = [batch.permute(0, 2, 3, 1).to(torch.uint8) for batch, _ in batches]
        return torch.cat(pixels), torch.cat([labels for _, labels in batches])

    def _load(self, size_px: int | None) -> data.ImageData:
        return data.load(self._name, data_dir=self._data_dir, size_px=size_px, stream=True)


def _statistics(name: str, preprocess: data.Preprocess) -> InputStatistics:
    """Return the statistics of a preprocessing with four decimals, as they are printed."""
    mean, std = (
        tuple(round(value / 255, 4) for value in values.tolist())
        for values in (preprocess.mean, preprocess.scale)
    )
    return InputStatistics(name=name, mean=mean, std=std)


@dataclass(frozen=True)
class ChoiceMeasure:
    """Computes errors and losses of choices.

    Attributes:
        identity: The network, with the switches of the user.
        options: What the user says.
        source: The source of the network.
        images: The images that choices are tried on.
        choices: The choices.
        order: The output of the network for each class of the data.
        device: Where to compute.
        networks: Networks that were built, by their switches.
    """

    identity: Identity
    options: InputOptions
    source: str
    images: TrialImages
    choices: Sequence[InputChoice]
    order: Sequence[int]
    device: str
    networks: dict[str, Network] = field(default_factory=dict)

    @cached_property
    def costs(self) -> list[float]:
        """Multiply-adds of an image for each choice."""
        sizes = [self._preprocess(choice).size_px for choice in self.choices]
        identity = self.identity
        with torch.device("meta"):
            net = models.build(**identity.spec, num_classes=identity.num_classes or 1)
        channels = int(identity.spec["in_channels"])
        macs = {
            size: float(models.complexity(net, (channels, size, size)).macs) for size in set(sizes)
        }
        return [macs[size] for size in sizes]

    @torch.inference_mode()
    def measure(self, number: int, start: int, stop: int) -> tuple[Misses, Losses]:
        """Return which of the images `start` to `stop - 1` are wrong, and their losses in nats."""
        logits, labels = self._logits(number, start, stop)
        logits = logits[:, list(self.order)]
        is_finite = logits.isfinite().all(1)
        misses = (logits.argmax(1) != labels) | ~is_finite
        losses = functional.cross_entropy(logits, labels, reduction="none").double()
        losses = losses.where(is_finite, torch.full_like(losses, _LARGEST_LOSS))
        return (
            np.asarray(misses.numpy(), dtype=np.bool_),
            np.asarray(losses.clamp(max=_LARGEST_LOSS).numpy(), dtype=np.float64),
        )

    def find_order(self) -> list[int] | None:
        """Return the output for each class if the outputs stand in another order than the classes.

        The order is fitted on half of the images: the assignment with most right answers. It counts
        if, for some choice, it is better than chance on the other half and halves the errors.

        Returns:
            None if there is no such order, or more classes than the images can show.
        """
        if _IMAGES_PER_CLASS * len(self.order) > _IMAGES_FOR_ORDER:
            return None
        num_images = self._num_images_for_order()
        half = num_images // 2
        best: tuple[int, list[int]] | None = None
        for number in range(len(self.choices)):
            outputs, labels = self._predicted(number, num_images)
            order = _best_order(outputs[:half], labels[:half], len(self.order))
            misses = np.take(order, labels[half:]) != outputs[half:]
            usual_misses = np.take(self.order, labels[half:]) != outputs[half:]
            is_better = 2 * misses.sum() <= usual_misses.sum()
            largest_share = self.images.largest_share(num_images)
            if not is_better or not is_above_chance(misses, largest_share):
                continue
            if best is None or misses.sum() < best[0]:
                best = int(misses.sum()), _best_order(outputs, labels, len(self.order))
        return None if best is None else best[1]

    def _num_images_for_order(self) -> int:
        """Return a few images per class, and more for small networks."""
        fewest = _IMAGES_PER_CLASS * len(self.order)
        affordable = int(BUDGET_MACS / sum(self.costs))
        return min(len(self.images), _IMAGES_FOR_ORDER, max(fewest, affordable))

    @torch.inference_mode()
    def _predicted(self, number: int, num_images: int) -> tuple[Integers, Integers]:
        """Return the output with the greatest logit, and the label, of the first images [N]."""
        logits, labels = self._logits(number, 0, num_images)
        return logits.argmax(1).numpy(), labels.numpy()

    def _logits(self, number: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return logits [n, K] and labels [n] of images `start` to `stop - 1`, on the CPU."""
        choice = self.choices[number]
        network, preprocess = self._network(choice.switches), self._preprocess(choice)
        pixels, labels = self.images.pixels(preprocess, start, stop)
        preprocess = preprocess.to(self.device)
        parts = [pixels[first : first + _MAX_BATCH] for first in range(0, len(pixels), _MAX_BATCH)]
        logits = [network(preprocess(part.to(self.device))).float().cpu() for part in parts]
        return torch.cat(logits), labels

    def _preprocess(self, choice: InputChoice) -> data.Preprocess:
        return foreign_preprocess(self.identity, choice.options(self.options), self.source)

    def _network(self, switches: Mapping[str, Any]) -> Network:
        """Return the network with these switches. It is built once."""
        key = json.dumps(dict(switches))
        if key not in self.networks:
            identity = self.identity.with_switches(**switches)
            self.networks[key] = load_network(identity).to(self.device)
        return self.networks[key]


def _best_order(outputs: Integers, labels: Integers, num_classes: int) -> list[int]:
    """Return the output for each class that gives most right answers, each output once."""
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((num_classes, num_classes))
    np.add.at(counts, (labels, outputs), 1)
    _, columns = linear_sum_assignment(counts, maximize=True)
    return [int(column) for column in columns]
