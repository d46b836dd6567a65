"""Try what a file of weights leaves open on training images: `decide_open_input`.

The rule of the decision is in `evaluate/race.py`. Test images are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reslearn.evaluate.race import Losses, Misses, Racer, RaceResult, is_above_chance, race
from reslearn.interop import Identity
from reslearn.interop.as_bundle import (
    InputOptions,
    class_order,
    foreign_classes,
    foreign_identity,
    other_classes_text,
    unnamed_classes,
)
from reslearn.interop.open_choices import (
    InputChoice,
    OpenInput,
    command_text,
    given_text,
    open_input,
    switches_text,
)
from reslearn.interop.pretrained import has_name
from reslearn.progress import progress_bar
from reslearn.runs import RunFolder
from reslearn.train import numerics
from reslearn.train.setup import Machine
from reslearn.train.trial_images import BUDGET_MACS, ChoiceMeasure, TrialImages

_MOST_NAMES_PRINTED = 40


@dataclass(frozen=True, kw_only=True)
class InputTrial:
    """The choices that a file leaves open, and how they did on training images.

    Attributes:
        source: The file, folder, name or URL.
        data_name: The data whose training images were used.
        given_options: The options that the user gave, as on a command line.
        open_values: The values that were tried.
        choices: All combinations, in the order of the race.
        result: The race of `choices`.
        largest_share: Share of the most frequent class among the images, from 0 to 1.
        found_names: Classes in the order of the outputs, if they stand in another order than those
            of the data; the images showed it.
    """

    source: str
    data_name: str
    given_options: str
    open_values: OpenInput
    choices: Sequence[InputChoice]
    result: RaceResult
    largest_share: float
    found_names: tuple[str, ...] | None

    @property
    def winner(self) -> InputChoice:
        return self.choices[self.result.winner]

    def lines(self) -> list[str]:
        """Return the trial as text: a line for each value, and what was taken and why."""
        racers, num_choices = self.result.racers, len(self.choices)
        num_images = racers[self.result.winner].num_images
        lines = []
        if num_choices > 1:
            lines += [
                f"{self.source} leaves open: {', '.join(self.open_values.names())}",
                f"{num_choices} choices were tried on up to {num_images:,} training images of "
                f"{self.data_name}:",
                "   error %   images  choice, with the other values as taken",
            ]
            lines += self._choice_lines()
            lines.append(f"taken: {self.winner.options_text()}; {self._reason()}")
        lines += self._order_lines()
        options = [self.given_options, self.winner.options_text()]
        if self.found_names is not None:
            options.append("--class-names FILE")
        command = command_text(self.source, self.data_name, " ".join(filter(None, options)))
        lines.append(f"to use it again: {command} (predict, export and serve take these options)")
        if not is_above_chance(racers[self.result.winner].misses, self.largest_share):
            lines.append(
                "no choice is better than chance: the network was trained for other classes, for "
                "another order of them, or computes another function than its tensors show"
            )
        return lines

    def record(self) -> dict[str, Any]:
        """Return the trial as plain values."""
        choices = [
            _choice_record(choice, racer)
            for choice, racer in zip(self.choices, self.result.racers, strict=True)
        ]
        return {
            "images": "train",
            "num_images": self.result.racers[self.result.winner].num_images,
            "open": self.open_values.names(),
            "choices": choices,
            "taken": self.result.winner,
            "decided_by": self.result.decided_by,
            "found_names": self.found_names,
            "options": self.winner.options_text(),
        }

    def _choice_lines(self) -> list[str]:
        """Return a line for each value that was tried."""
        lines = []
        for number, label in self._compared():
            racer = self.result.racers[number]
            error_pct = 100 * racer.num_errors / racer.num_images
            mark = ", taken" if number == self.result.winner else ""
            lines.append(f"{error_pct:10.2f} {racer.num_images:8,}  {label}{mark}")
        return lines

    def _order_lines(self) -> list[str]:
        """Return a line if the outputs stand in another order than the classes of the data."""
        if self.found_names is None:
            return []
        listed = ", ".join(self.found_names[:_MOST_NAMES_PRINTED])
        if len(self.found_names) > _MOST_NAMES_PRINTED:
            listed += ", ... (--json lists all)"
        return [
            f"the outputs of {self.source} stand in another order than the classes of the data; by "
            "training images: "
            f"{listed}; put these names into a file, one per line, for --class-names FILE"
        ]

    def _compared(self) -> list[tuple[int, str]]:
        """Return the choices that differ from the winner in one thing, each with that thing."""
        values = self.open_values
        compared: list[tuple[int, str]] = []
        for number, choice in enumerate(self.choices):
            if (
                len(values.switches) > 1
                and replace(choice, switches=self.winner.switches) == self.winner
            ):
                compared.append((number, switches_text(choice.switches)))
        for number, choice in enumerate(self.choices):
            is_alike = replace(choice, statistics=self.winner.statistics) == self.winner
            if len(values.statistics) > 1 and is_alike and choice.statistics is not None:
                text = f"{choice.statistics.options_text()} ({choice.statistics.name})"
                compared.append((number, text))
        for number, choice in enumerate(self.choices):
            if len(values.sizes) > 1 and replace(choice, size=self.winner.size) == self.winner:
                compared.append((number, f"--size {choice.size}"))
        return compared

    def _reason(self) -> str:
        if self.result.decided_by == "error":
            return "all others err more often on the same images (paired test, p < 0.0001)"
        if self.result.decided_by == "loss":
            return (
                "all others err more often or have a higher loss on the same images (paired tests, "
                "p < 0.0001)"
            )
        return (
            f"{self.result.num_equal} choices differ significantly neither in errors nor in "
            "losses, so any of them may be right; its loss is the lowest"
        )


def decide_open_input(
    source: str | Path, data_name: str | None, machine: Machine, options: InputOptions
) -> tuple[InputOptions, InputTrial | None]:
    """Return options that leave nothing open, and the trial that decided; None without a trial.

    Runs, bundles and published names leave nothing open.

    Args:
        source: A network, as in `evaluate_bundle`.
        data_name: Labeled images. Only training images are read.
        machine: The device, and the folder of the datasets.
        options: What the user says. It is not tried.

    Raises:
        WeightsError: If the weights cannot be used.
        DataError: If the data are missing.
        ValueError: If the data have other classes, or images of other channels.
    """
    identity = _foreign_identity(source, options)
    if identity is None or data_name is None or identity.num_classes is None:
        return options, None
    images = TrialImages(data_name, machine.data_dir)
    classes = foreign_classes(identity, options)
    order = class_order(images.classes, classes)
    channels = int(identity.spec["in_channels"])
    if order is None:
        raise ValueError(
            other_classes_text(classes, images.classes, data_name=data_name, source=source)
        )
    if images.channels != channels:
        raise ValueError(
            f"{source} takes images of {channels} channels, and those of {data_name} have "
            f"{images.channels}: name other data"
        )
    values = open_input(
        identity, options, source, fitted=images.statistics, data_size_px=images.size_px
    )
    choices = values.choices()
    is_unnamed = classes == unnamed_classes(len(classes))
    if len(choices) == 1 and not is_unnamed:
        return choices[0].options(options), None
    device = numerics.choose_device(machine.device)
    numerics.choose_kernels(device)
    measure = ChoiceMeasure(identity, options, str(source), images, choices, order, device)
    result, found_names = _race_in_order(measure, is_unnamed=is_unnamed)
    if len(choices) == 1 and found_names is None:
        return choices[0].options(options), None
    trial = InputTrial(
        source=str(source),
        data_name=data_name,
        given_options=given_text(options),
        open_values=values,
        choices=choices,
        result=result,
        largest_share=images.largest_share(result.racers[result.winner].num_images),
        found_names=found_names,
    )
    return replace(trial.winner.options(options), ordered_names=found_names), trial


def _race_in_order(
    measure: ChoiceMeasure, *, is_unnamed: bool
) -> tuple[RaceResult, tuple[str, ...] | None]:
    """Race the choices, and once more if only another order of the outputs explains the labels.

    Returns:
        The last race, and the names of the classes in the order of the outputs if it is another.
    """
    result = _race(measure)
    winner = result.racers[result.winner]
    if not is_unnamed or 2 * winner.num_errors <= winner.num_images:
        return result, None
    order = measure.find_order()
    if order is None:
        return result, None
    by_output = sorted(zip(order, measure.images.classes, strict=True))
    return _race(replace(measure, order=order)), tuple(name for _, name in by_output)


def _race(measure: ChoiceMeasure) -> RaceResult:
    """Race the choices with a bar."""
    num_choices = len(measure.choices)
    description = f"{measure.source}: {num_choices} choices"
    with progress_bar(description, None, after_seconds=2.0) as advance:

        def with_bar(number: int, start: int, stop: int) -> tuple[Misses, Losses]:
            advance(stop - start)
            return measure.measure(number, start, stop)

        return race(
            num_choices,
            with_bar,
            len(measure.images),
            costs=measure.costs,
            budget=BUDGET_MACS,
        )


def _foreign_identity(source: str | Path, options: InputOptions) -> Identity | None:
    """Identify weights of another project; None for runs, bundles and what does not exist."""
    path, is_name = Path(source), has_name(str(source))
    if not is_name and (RunFolder(path).exists() or not path.exists()):
        return None
    return foreign_identity(source, options)


def _choice_record(choice: InputChoice, racer: Racer) -> dict[str, Any]:
    statistics = choice.statistics
    return {
        "switches": dict(choice.switches),
        "statistics": None if statistics is None else statistics.name,
        "mean": None if statistics is None else list(statistics.mean),
        "std": None if statistics is None else list(statistics.std),
        "size": choice.size,
        "num_images": racer.num_images,
        "num_errors": racer.num_errors,
        "error_pct": 100 * racer.num_errors / racer.num_images,
        "loss": racer.loss,
        "is_left": bool(racer.is_left),
    }
