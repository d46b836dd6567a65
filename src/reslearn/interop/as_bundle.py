"""Any network that reslearn can read, as a bundle: `as_bundle(source)`.

A bundle holds its preprocessing and its class names. Weights of other projects hold neither. Mean
and standard deviation then come from the published name, from the dialect, or from the user
(`InputOptions`). The usual image size belongs to the stem: 32 pixels for CIFAR stems; for other
stems 224 pixels, cut out of a shorter side of 256, as in Sec. 3.4.
"""

from __future__ import annotations

import math
import shlex
import warnings
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from reslearn.data import TEST_SHORTER_PX, Preprocess, scale_length
from reslearn.interop.bundle import BUNDLE_FORMAT, Bundle, read_bundle
from reslearn.interop.identify import identify_checkpoint
from reslearn.interop.identity import Identity
from reslearn.interop.load import load_network, preprocess_origin, preprocess_with
from reslearn.interop.pretrained import local_path
from reslearn.interop.read import read_checkpoint
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
        entry: Which table of the file to use, or the beginning of names in it (see
            `identify_checkpoint`).
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    shorter: int | None = None
    class_names: Path | None = None
    stride_in: str | None = None
    entry: str | None = None

    def names_in_use(self) -> tuple[str, ...]:
        """Return the options that were given, such as "--mean"."""
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return tuple("--" + name.replace("_", "-") for name in names)

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
        A bundle. Without `class_names` the classes of foreign weights are "0", "1", ...

    Raises:
        BundleError: If a bundle is damaged.
        WeightsError: If the weights cannot be used, or the preprocessing is not known.
    """
    path = local_path(source)
    checkpoint = read_checkpoint(path)
    if checkpoint.metadata.get("format") == BUNDLE_FORMAT:
        options.refuse_for(source)
        return read_bundle(path)
    identity = identify_checkpoint(checkpoint, entry=options.entry)
    if identity.num_classes is None:
        raise WeightsError(_no_classes(identity, source))
    if options.stride_in is not None:
        identity = identity.with_switches(stride_in=options.stride_in)
    network = load_network(identity)
    return Bundle(
        network=network,
        classes=_class_names(options.class_names, network.num_classes),
        preprocess=foreign_preprocess(identity, options, source),
        metrics={},
        recipe_hash="",
    )


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
    is_cifar = identity.spec["stem"] == "cifar"
    usual_size = 32 if is_cifar else 224
    size = usual_size if options.size is None else options.size
    shorter = options.shorter
    if size < 1 or (shorter is not None and shorter < size):
        raise WeightsError(
            f"--size {size}, --shorter {shorter}: the size must be 1 or more, and the shorter side "
            "at least as long"
        )
    if shorter is None and not is_cifar:
        shorter = scale_length(TEST_SHORTER_PX, size)
    preprocess = preprocess_with(identity, size_px=size, channels=channels, source=source)
    mean, std = (
        _fractions("--mean", options.mean, channels),
        _fractions("--std", options.std, channels),
    )
    if preprocess is None and (mean is None or std is None):
        example = ",".join(["0.5"] * channels)
        raise WeightsError(
            f"{source or identity.checkpoint.path}: its mean and standard deviation are not known; "
            f"pass those of its training, as in --mean {example} --std {example}"
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
        "Pass other values if it was trained with others",
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


def _class_names(path: Path | None, num_classes: int) -> tuple[str, ...]:
    if path is None:
        return unnamed_classes(num_classes)
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
