"""What the file of a network leaves open about its use, and the values that may be right.

Three things may be open: switches that leave no trace in weights, mean and standard deviation of
the images, and their size. The file, a file beside it, a published name or the user may say them.
"""

import itertools
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reslearn.interop.as_bundle import InputOptions
from reslearn.interop.identity import Identity
from reslearn.interop.load import KNOWN_ORIGINS, preprocess_origin
from reslearn.interop.pretrained import published_weights
from reslearn.interop.stated import Numbers, stated_input, usual_size
from reslearn.switches import SWITCHES

# Statistics that differ less give the same errors.
_TOLERANCE = 0.002
_OTHER_SIZES = {"cifar": (64,), "imagenet": (128,), "deep": (128,)}


@dataclass(frozen=True, kw_only=True)
class InputStatistics:
    """Mean and standard deviation of each channel, of pixel values from 0 to 1.

    Attributes:
        name: Where they come from, in words.
    """

    name: str
    mean: Numbers
    std: Numbers

    def is_like(self, statistics: "InputStatistics") -> bool:
        """Return whether a network can hardly tell one from the other."""
        pairs = zip((*self.mean, *self.std), (*statistics.mean, *statistics.std), strict=True)
        return all(abs(first - second) < _TOLERANCE for first, second in pairs)

    def options_text(self) -> str:
        return f"--mean {_joined(self.mean)} --std {_joined(self.std)}"


# CIFAR-10 has two deviations in use: of all pixels, and the mean over images of their deviations.
_OF_COLORS = (
    InputStatistics(name="ImageNet", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    InputStatistics(name="CIFAR-10", mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616)),
    InputStatistics(
        name="CIFAR-10, deviations of single images",
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.201),
    ),
    InputStatistics(name="CIFAR-100", mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762)),
)
_OF_GRAY = (InputStatistics(name="MNIST", mean=(0.1307,), std=(0.3081,)),)
# Ranges of the pixel values that the network sees.
_RANGES = {"-1 to 1": (0.5, 0.5), "0 to 1": (0.0, 1.0), "0 to 255": (0.0, 1 / 255)}


@dataclass(frozen=True, kw_only=True)
class InputChoice:
    """One way to use a network.

    Attributes:
        switches: Values of open switches.
        statistics: None: those that are known.
        size: Side of the images in pixels. None: the side that is known.
    """

    switches: Mapping[str, Any]
    statistics: InputStatistics | None
    size: int | None

    def options_text(self) -> str:
        """Return the options that make this choice on a command line."""
        texts = [switches_text(self.switches)] if self.switches else []
        if self.statistics is not None:
            texts.append(self.statistics.options_text())
        if self.size is not None:
            texts.append(f"--size {self.size}")
        return " ".join(texts)

    def options(self, user_options: InputOptions) -> InputOptions:
        """Return the user's options and this choice."""
        switches = {**user_options.chosen_switches, **self.switches}
        options = replace(user_options, stride_in=None, switches=switches or None)
        if self.statistics is not None:
            options = replace(options, mean=self.statistics.mean, std=self.statistics.std)
        return options if self.size is None else replace(options, size=self.size)


@dataclass(frozen=True, kw_only=True)
class OpenInput:
    """The values to try, the usual one first. A single value is known, or needs no trial."""

    switches: Sequence[Mapping[str, Any]]
    statistics: Sequence[InputStatistics | None]
    sizes: Sequence[int | None]

    def choices(self) -> list[InputChoice]:
        """Return all combinations of the values, the usual one first."""
        return [
            InputChoice(switches=switches, statistics=statistics, size=size)
            for switches, statistics, size in itertools.product(
                self.switches, self.statistics, self.sizes
            )
        ]

    def names(self) -> list[str]:
        """Return what is open, in words."""
        keys = dict.fromkeys(itertools.chain.from_iterable(self.switches))
        names = [f"model.{key}" for key in keys] if len(self.switches) > 1 else []
        if len(self.statistics) > 1:
            names.append("mean and deviation")
        return [*names, "image size"] if len(self.sizes) > 1 else names


def open_input(
    identity: Identity,
    options: InputOptions,
    source: Path | str,
    *,
    fitted: Callable[[], Sequence[InputStatistics]],
    data_size_px: int | None,
) -> OpenInput:
    """Return what a file leaves open.

    Args:
        identity: With the switches of the user.
        options: What the user says. It is not open.
        source: The source that `identity` was made from. Published names leave nothing open but
            the size.
        fitted: Returns statistics of the images that the network is evaluated on.
        data_size_px: Side of these images, if they have one. Picture files can have any.
    """
    is_published = str(source) in published_weights()
    return OpenInput(
        switches=[{}] if is_published else _open_switches(identity, options),
        statistics=_open_statistics(identity, options, source, fitted),
        sizes=_open_sizes(identity, options, data_size_px, is_published=is_published),
    )


def switches_text(switches: Mapping[str, Any]) -> str:
    """Return switches as options: --set model.zero_pad=split."""
    return " ".join(f"--set model.{key}={value}" for key, value in switches.items())


def given_text(options: InputOptions) -> str:
    """Return what the user has given as options of a command line."""
    texts = [switches_text(options.chosen_switches)] if options.chosen_switches else []
    for name in ("mean", "std"):
        values = getattr(options, name)
        if values is not None:
            texts.append(f"--{name} {_joined(values)}")
    for name in ("size", "shorter", "class_names", "entry"):
        value = getattr(options, name)
        if value is not None:
            texts.append(f"--{name.replace('_', '-')} {shlex.quote(str(value))}")
    return " ".join(texts)


def command_text(source: Path | str, data_name: str, options: str) -> str:
    """Return the command that evaluates a source with options."""
    return f"reslearn evaluate {shlex.quote(str(source))} {shlex.quote(data_name)} {options}"


def _open_switches(identity: Identity, options: InputOptions) -> list[Mapping[str, Any]]:
    """Return combinations of values of the open switches, and the network without shortcuts."""
    chosen = options.chosen_switches
    names = [name for name in identity.undetermined if name not in chosen]
    values = [_values(identity, name) for name in names]
    combinations: list[Mapping[str, Any]] = [
        dict(zip(names, combination, strict=True)) for combination in itertools.product(*values)
    ]
    if identity.plain_name is not None and not chosen:
        combinations.append({"name": identity.plain_name})
    return combinations


def _values(identity: Identity, name: str) -> list[Any]:
    """Return the values of a switch, the usual one first."""
    values = SWITCHES[name].values
    assert isinstance(values, tuple), name
    usual = identity.spec[name]
    return [usual, *(value for value in values if value != usual)]


def _open_statistics(
    identity: Identity,
    options: InputOptions,
    source: Path | str,
    fitted: Callable[[], Sequence[InputStatistics]],
) -> Sequence[InputStatistics | None]:
    """Return the statistics to try: the dialect's, the usual ones, and the images' own."""
    origin = preprocess_origin(identity, source=source)
    is_given = options.mean is not None and options.std is not None
    if is_given or origin in KNOWN_ORIGINS:
        return [None]
    channels = int(identity.spec["in_channels"])
    candidates = [
        *_of_dialect(identity, channels),
        *_usual_statistics(identity, channels),
        *fitted(),
    ]
    mean, std = (_for_channels(values, channels) for values in (options.mean, options.std))
    if mean is not None:
        candidates = [replace(each, mean=mean) for each in candidates]
    if std is not None:
        candidates = [replace(each, std=std) for each in candidates]
    return _different(candidates)


def _for_channels(values: Numbers | None, channels: int) -> Numbers | None:
    """Return one value for each channel. One value is for all channels."""
    return values * channels if values is not None and len(values) == 1 else values


def _of_dialect(identity: Identity, channels: int) -> list[InputStatistics]:
    table = identity.dialect.preprocess
    if not table or len(table["mean"]) != channels:
        return []
    name = f"published {identity.publisher} weights"
    return [InputStatistics(name=name, mean=tuple(table["mean"]), std=tuple(table["std"]))]


def _usual_statistics(identity: Identity, channels: int) -> list[InputStatistics]:
    named = {1: _OF_GRAY, 3: _OF_COLORS}.get(channels, ())
    if identity.spec["stem"] != "cifar":
        named = named[:1]
    ranges = [
        InputStatistics(name=f"pixels from {name}", mean=(mean,) * channels, std=(std,) * channels)
        for name, (mean, std) in _RANGES.items()
    ]
    return [*named, *ranges]


def _different(candidates: Iterable[InputStatistics]) -> list[InputStatistics]:
    """Return candidates without those that are like an earlier one."""
    different: list[InputStatistics] = []
    for candidate in candidates:
        if not any(candidate.is_like(earlier) for earlier in different):
            different.append(candidate)
    return different


def _open_sizes(
    identity: Identity, options: InputOptions, data_size_px: int | None, *, is_published: bool
) -> Sequence[int | None]:
    """Return the sizes to try. Images in memory have one size."""
    if options.size is not None or stated_input(identity).size is not None:
        return [None]
    usual = usual_size(identity)
    if data_size_px is not None:
        return [None if data_size_px == usual else data_size_px]
    if is_published:
        return [None]
    return [usual, *_OTHER_SIZES[str(identity.spec["stem"])]]


def _joined(values: Numbers) -> str:
    """Return numbers as an option takes them; one number stands for equal ones."""
    distinct = values[:1] if len(set(values)) == 1 else values
    return ",".join(f"{value:.6g}" for value in distinct)
