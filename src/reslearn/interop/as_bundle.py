"""Any network that reslearn can read, as a bundle: `as_bundle(source)`.

A bundle holds its preprocessing and its class names. Weights of other projects may state them in a
file beside them (stated.py). Otherwise mean and standard deviation come from the published name,
from the dialect, or from the user (`InputOptions`). The usual image size belongs to the stem: 32
pixels for CIFAR stems; for other stems 224 pixels, cut out of a shorter side of 256 (Sec. 3.4).
"""

from __future__ import annotations

import math
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from reslearn.data import TEST_SHORTER_PX, Preprocess, scale_length
from reslearn.interop.bundle import BUNDLE_FORMAT, Bundle, read_bundle
from reslearn.interop.identify import identify_checkpoint
from reslearn.interop.identity import Identity
from reslearn.interop.load import load_network, preprocess_origin, preprocess_with
from reslearn.interop.pretrained import local_path
from reslearn.interop.read import read_checkpoint
from reslearn.interop.stated import StatedInput, stated_input, usual_size
from reslearn.interop.stored import WeightsError, first_line


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """What the user knows about the input and the classes of a network, and its file does not.

    Attributes:
        mean: Mean of each channel, of pixel values from 0 to 1, red first.
        std: Standard deviation of each channel, in the same unit.
        size: Side of the square that the network sees, in pixels.
        shorter: Shorter side to which a picture is resized before its center is cut out.
        class_names: A text file with one class name per line, in the order of the outputs.
        stride_in: Which convolution of a bottleneck strides, "1x1" or "3x3". None: the usual one of
            the project.
        switches: Further switches that the weights do not show, such as {"zero_pad": "split"}.
        entry: Which table of the file to use, or the beginning of names in it (see
            `identify_checkpoint`).
        ordered_names: The names of the classes in the order of the outputs, instead of a file.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    shorter: int | None = None
    class_names: Path | None = None
    stride_in: str | None = None
    switches: Mapping[str, Any] | None = None
    entry: str | None = None
    ordered_names: tuple[str, ...] | None = None

    @property
    def chosen_switches(self) -> dict[str, Any]:
        """The switches that `stride_in` and `switches` set."""
        stride_in = {} if self.stride_in is None else {"stride_in": self.stride_in}
        return {**stride_in, **(self.switches or {})}

    def names_in_use(self) -> tuple[str, ...]:
        """Return the options that were given, such as "--mean"."""
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        options = ["--" + name.replace("_", "-") for name in names]
        return tuple("--set" if option == "--switches" else option for option in options)

    def refuse_for(self, source: Path | str) -> None:
        """Raise WeightsError if options are given for a source that records these values."""
        if names := self.names_in_use():
            raise WeightsError(
                f"{source} records its preprocessing and classes: leave out {', '.join(names)}"
            )


NO_OPTIONS = InputOptions()


def as_bundle(source: Path | str, options: InputOptions = NO_OPTIONS) -> Bundle:
    """Open a bundle, a shipped network, or weights of any project that `identify` knows.

    Args:
        source: A file, a folder of `save_pretrained`, a name such as "reslearn:resnet20" or
            "torchvision:resnet50", or a URL.
        options: For weights of other projects only. A bundle records these values, so it refuses
            them.

    Returns:
        A bundle. The classes of foreign weights are those of `class_names`, or those that the file
        states, or else "0", "1", ...

    Raises:
        BundleError: If a bundle is damaged.
        WeightsError: If the weights cannot be used, or the preprocessing is not known.
    """
    identity = foreign_identity(source, options)
    if identity is None:
        options.refuse_for(source)
        return read_bundle(local_path(source))
    if identity.num_classes is None:
        raise WeightsError(_no_classes(identity, source))
    network = load_network(identity)
    return Bundle(
        network=network,
        classes=foreign_classes(identity, options),
        preprocess=foreign_preprocess(identity, options, source),
        metrics={},
        recipe_hash="",
    )


def foreign_identity(source: Path | str, options: InputOptions = NO_OPTIONS) -> Identity | None:
    """Identify weights of another project, with the switches of the user. None: it is a bundle.

    Raises:
        WeightsError: If the weights cannot be used, or a switch cannot be set.
    """
    checkpoint = read_checkpoint(local_path(source))
    if checkpoint.metadata.get("format") == BUNDLE_FORMAT:
        return None
    identity = identify_checkpoint(checkpoint, entry=options.entry)
    switches = options.chosen_switches
    return identity.with_switches(**switches) if switches else identity


def _no_classes(identity: Identity, source: Path | str) -> str:
    """Return one line for a file without a head."""
    left_out = [note for note in identity.notes if "left out" in note]
    reason = f" ({left_out[0]})" if left_out else ""
    return (
        f"{source} is a {identity.spec['name']} without a head of classes{reason}: train one with "
        f"reslearn train DATA --init {shlex.quote(str(source))}"
    )


def foreign_preprocess(
    identity: Identity, options: InputOptions = NO_OPTIONS, source: Path | str = ""
) -> Preprocess:
    """Return the preprocessing for weights of another project, and warn if it is a guess.

    Raises:
        WeightsError: If mean and standard deviation are not known, or an option has a wrong value.
    """
    channels = int(identity.spec["in_channels"])
    size, shorter = _sizes(identity, options, stated_input(identity))
    preprocess = preprocess_with(identity, size_px=size, channels=channels, source=source)
    mean, std = (
        _fractions("--mean", options.mean, channels),
        _fractions("--std", options.std, channels),
    )
    if preprocess is None and (mean is None or std is None):
        example = ",".join(["0.5"] * channels)
        raise WeightsError(
            f"{source or identity.checkpoint.path}: its mean and standard deviation are not known; "
            f"pass those of its training, as in --mean {example} --std {example}, or let "
            f"reslearn evaluate {shlex.quote(str(source))} DATA find them on labeled images"
        )
    if (mean is None or std is None) and preprocess_origin(identity, source=source) == "assumed":
        _warn_of_guess(identity, preprocess, source)
    if preprocess is None:
        zeros, ones = torch.zeros(channels), torch.ones(channels)
        preprocess = Preprocess(size_px=size, channels=channels, mean=zeros, scale=ones)
    return replace(
        preprocess,
        mean=preprocess.mean if mean is None else mean,
        scale=preprocess.scale if std is None else std,
        shorter_px=shorter,
    )


def _sizes(
    identity: Identity, options: InputOptions, stated: StatedInput
) -> tuple[int, int | None]:
    """Return the size of the images, and the shorter side before the center is cut out.

    Raises:
        WeightsError: If an option has a wrong value.
    """
    usual = usual_size(identity) if stated.size is None else stated.size
    size = usual if options.size is None else options.size
    shorter = options.shorter
    if size < 1 or (shorter is not None and shorter < size):
        raise WeightsError(
            f"--size {size}, --shorter {shorter}: the size must be 1 or more, and the shorter side "
            "at least as long"
        )
    if shorter is None and stated.shorter is not None and stated.size is not None:
        shorter = max(size, round(stated.shorter * size / stated.size))
    elif shorter is None and identity.spec["stem"] != "cifar":
        shorter = scale_length(TEST_SHORTER_PX, size)
    return size, shorter


def _warn_of_guess(identity: Identity, preprocess: Preprocess | None, source: Path | str) -> None:
    """Warn that a file with the names of a project may have been trained with other values."""
    if preprocess is None:
        return
    mean, std = (
        ",".join(f"{value / 255:.4g}" for value in values.tolist())
        for values in (preprocess.mean, preprocess.scale)
    )
    warnings.warn(
        f"{source}: its preprocessing is not recorded. As a guess, that of published "
        f"{identity.publisher} weights is used: --mean {mean} --std {std}. "
        "Pass other values if it was trained with others; reslearn evaluate finds them on labeled "
        "images",
        stacklevel=4,
    )


def _fractions(option: str, values: tuple[float, ...] | None, channels: int) -> torch.Tensor | None:
    """Return values from 0 to 1 as 8-bit units [C]. One value is for all channels."""
    if values is None:
        return None
    smallest = 0.0 if option == "--mean" else 1e-6
    if not all(math.isfinite(value) and smallest <= value <= 1 for value in values):
        raise WeightsError(
            f"{option} {','.join(map(str, values))}: the values must be of pixels from 0 to 1, as "
            "in 0.485,0.456,0.406; divide values of pixels from 0 to 255 by 255"
        )
    if len(values) not in (1, channels):
        raise WeightsError(
            f"{option} has {len(values)} values, and the images have {channels} channels"
        )
    return torch.tensor(values, dtype=torch.float32).expand(channels).mul(255).contiguous()


def unnamed_classes(num_classes: int) -> tuple[str, ...]:
    """Return the names of classes whose file has no names: "0", "1", ..."""
    return tuple(str(number) for number in range(num_classes))


def have_same_classes(names: tuple[str, ...], bundle_classes: tuple[str, ...]) -> bool:
    """Return whether labels of data with class `names` are classes of a bundle.

    A bundle whose classes have no names fits all data with as many classes.
    """
    return bundle_classes in (names, unnamed_classes(len(names)))


def class_order(names: tuple[str, ...], bundle_classes: tuple[str, ...]) -> list[int] | None:
    """Return the output of a bundle for each class of data, or None if the classes differ.

    Names are compared without regard to case, and to blanks, dashes and underscores.
    """
    if have_same_classes(names, bundle_classes):
        return list(range(len(names)))
    keys, bundle_keys = ([_name_key(name) for name in each] for each in (names, bundle_classes))
    is_unique = len(set(bundle_keys)) == len(bundle_keys)
    if not is_unique or sorted(keys) != sorted(bundle_keys):
        return None
    return [bundle_keys.index(key) for key in keys]


def with_classes_of(
    bundle: Bundle, names: tuple[str, ...], *, data_name: str, source: Path | str
) -> Bundle:
    """Return a bundle whose outputs are the classes of data, in their order.

    Raises:
        ValueError: If the data have other classes. The message is one line.
    """
    order = class_order(names, bundle.classes)
    if order is None:
        raise ValueError(
            other_classes_text(
                bundle.classes,
                names,
                data_name=data_name,
                source=source,
                is_foreign=not bundle.recipe_hash,
            )
        )
    if order == list(range(len(order))):
        return bundle
    warnings.warn(
        f"{source}: its classes stand in another order than those of {data_name}; its outputs are "
        "sorted by name",
        stacklevel=3,
    )
    with torch.no_grad():
        for parameter in bundle.network.get_classifier().parameters():
            parameter.copy_(parameter[order].clone())
    return replace(bundle, classes=names)


def other_classes_text(
    classes: tuple[str, ...],
    names: tuple[str, ...],
    *,
    data_name: str,
    source: Path | str,
    is_foreign: bool = True,
) -> str:
    """Return one line about classes that are not those of the data.

    Args:
        classes: The classes of the network.
        names: The classes of the data.
        data_name: The data, as the user names them.
        source: The network, as the user names it.
        is_foreign: Whether --class-names can say other names.
    """
    if len(classes) != len(names):
        return (
            f"{source} has {len(classes)} outputs, and {data_name} has {len(names)} classes: name "
            f"data with its {len(classes)} classes, or train a new head: reslearn train "
            f"{shlex.quote(data_name)} --init {shlex.quote(str(source))}"
        )
    keys = {_name_key(name) for name in names}
    missing = next((name for name in classes if _name_key(name) not in keys), classes[0])
    help_text = "name data with the same classes"
    if is_foreign:
        help_text += (
            ", or pass --class-names with the names of the data in the order of the outputs"
        )
    return (
        f"{data_name} has other classes ({', '.join(names[:3])}, ...) than {source} "
        f"({', '.join(classes[:3])}, ...), such as {missing!r}: {help_text}"
    )


def _name_key(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ").strip()


def foreign_classes(identity: Identity, options: InputOptions = NO_OPTIONS) -> tuple[str, ...]:
    """Return the names of classes of the user, or those that the file states, or "0", "1", ...

    Raises:
        WeightsError: If the user's file of names cannot be read, or has another number of names.
    """
    num_classes, path = identity.num_classes or 0, options.class_names
    if options.ordered_names is not None:
        return options.ordered_names
    if path is None:
        return stated_input(identity).class_names or unnamed_classes(num_classes)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"--class-names {path} cannot be read: {first_line(error)}") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != num_classes:
        raise WeightsError(
            f"--class-names {path} has {len(names)} names, and the network has {num_classes} "
            "classes: give one name per line"
        )
    return names
