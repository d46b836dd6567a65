"""What a file and the files beside it state in words: architecture, preprocessing and classes.

Folders of timm have a config.json with "pretrained_cfg". Folders of transformers have config.json
and preprocessor_config.json. A checkpoint may hold the names of its classes, and a normalizer with
mean and deviation beside the network. Nothing of this is needed to load the weights, so what cannot
be read is passed over.

A whole module in a pickle names the classes of its layers, so also of its activations.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from reslearn.interop.class_lists import names_by_number
from reslearn.interop.identity import Identity
from reslearn.interop.pretrained import FILES_OF_FOLDERS
from reslearn.interop.stored import Checkpoint, WeightsError

Numbers = tuple[float, ...]

_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
_ARCHITECTURE_KEYS = (
    *("arch", "architecture", "model_name", "model_arch", "backbone", "network", "model", "net"),
)
# Classes whose objects have no tensors that a pickle keeps.
_ACTIVATIONS = re.compile(
    r"(?:LeakyReLU|RReLU|ReLU6|C?ELU|SELU|GELU\w*|SiLU|(?:MemoryEfficient)?Swish\w*|Mish|"
    r"Hard[st]\w+)$"
)
_BLURRED = re.compile(r"blur|resnetaa|anti_?alias")
# ImageNet-21k has 21,843 classes: their names and numbers need 1.5 MB.
_LARGEST_CONFIG_BYTES = 4 << 20
_LARGEST_PX = 4096
_UNNAMED = re.compile(r"LABEL_\d+")
# Names of the mean in normalizers, and of the deviation beside it.
_NORMALIZER_LEAVES = {"mean": ("std",), "means": ("stds", "sds"), "mu": ("sigma", "std")}
# ConvNextImageProcessor, which transformers uses for ResNets: smaller images are cut out of a
# shorter side of size / crop_pct, larger ones are not cut.
_CROP_PCT, _FIRST_UNCUT_PX = 224 / 256, 384


@dataclass(frozen=True, kw_only=True)
class StatedInput:
    """What is stated about the input and the classes of a network. None: nothing.

    Attributes:
        mean: Mean of each channel, of pixel values from 0 to 1, red first.
        std: Standard deviation of each channel, in the same unit.
        size: Side of the square that the network sees, in pixels.
        shorter: Shorter side to which a picture is resized before its center is cut out.
        class_names: Names in the order of the outputs.
        origins: Where the values were found, by the name of their attribute.
    """

    mean: Numbers | None = None
    std: Numbers | None = None
    size: int | None = None
    shorter: int | None = None
    class_names: tuple[str, ...] | None = None
    origins: Mapping[str, str] = field(default_factory=dict)

    def with_origin(self, origin: str) -> "StatedInput":
        """Return a copy whose values come from `origin`."""
        values = ("mean", "std", "size", "shorter", "class_names")
        names = [name for name in values if getattr(self, name) is not None]
        return replace(self, origins=dict.fromkeys(names, origin))

    def for_classes(self, num_classes: int | None) -> "StatedInput":
        """Return a copy without class names if their number is another one.

        A detector, for example, has names of objects and a backbone without classes.
        """
        if self.class_names is None or len(self.class_names) == num_classes:
            return self
        origins = {name: self.origins[name] for name in self.origins if name != "class_names"}
        return replace(self, class_names=None, origins=origins)

    def completed_by(self, further: "StatedInput") -> "StatedInput":
        """Return a copy with the values of `further` where this one has none.

        Mean and deviation belong together, and so do both sizes.
        """
        groups = (("mean", "std"), ("size", "shorter"), ("class_names",))
        missing = [group for group in groups if getattr(self, group[0]) is None]
        values: dict[str, Any] = {}
        origins = dict(self.origins)
        for name in (name for group in missing for name in group):
            values[name] = getattr(further, name)
            if name in further.origins:
                origins[name] = further.origins[name]
        return replace(self, **values, origins=origins)

    def lines(self) -> list[str]:
        """Return one sentence for each place with a statement."""
        by_origin: dict[str, list[str]] = {}
        for value in fields(self):
            if value.name in self.origins:
                text = _as_text(value.name, getattr(self, value.name))
                by_origin.setdefault(self.origins[value.name], []).append(text)
        return [f"{origin} states {', '.join(texts)}" for origin, texts in by_origin.items()]


def refuse_stated_functions(checkpoint: Checkpoint) -> None:
    """Raise WeightsError if a file says that its network computes another function.

    Networks with blur pooling, or with another activation, have the names and shapes of a plain
    ResNet, so only words can tell. Words are looked up among the texts of the file, and in the
    config.json of a folder.
    """
    for origin, architecture in _architectures(checkpoint):
        if _BLURRED.search(architecture.lower()):
            raise WeightsError(
                f"{checkpoint.path} holds no network of the catalog: {origin} says "
                f"{architecture!r}, a network with blur pooling, which has the names and shapes of "
                "a plain ResNet and computes another function"
            )
    for name in checkpoint.unknown_objects:
        if _BLURRED.search(_class_of(name).lower()):
            raise WeightsError(
                f"{checkpoint.path} holds no network of the catalog: it holds an object of {name}, "
                "which blurs"
            )
    activations = _activations(checkpoint)
    if activations and "ReLU" not in map(_class_of, checkpoint.unknown_objects):
        raise WeightsError(
            f"{checkpoint.path} holds no network of the catalog: it holds objects of "
            f"{activations[0]} and none of ReLU, and the networks of the catalog have ReLU"
        )
    activation = _config(checkpoint).get("hidden_act", "relu")
    if activation != "relu":
        raise WeightsError(
            f"{checkpoint.path} holds no network of the catalog: config.json says hidden_act "
            f"{str(activation)[:40]!r}, and the networks of the catalog have relu"
        )


def notes_on_classes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return a sentence if a pickle names an activation that the networks of the catalog lack."""
    return tuple(
        f"the file holds an object of {name}, an activation that the catalog does not have"
        for name in _activations(checkpoint)[:1]
    )


def _activations(checkpoint: Checkpoint) -> list[str]:
    """Return the names of classes of activations other than ReLU."""
    names = checkpoint.unknown_objects
    return [name for name in names if _ACTIVATIONS.match(_class_of(name))]


def _class_of(name: str) -> str:
    """Return the last part of the name of a class."""
    return name.rpartition(".")[2]


def stated_switches(checkpoint: Checkpoint) -> dict[str, str]:
    """Return switches that weights do not show, and the config.json of transformers states."""
    value = _config(checkpoint).get("downsample_in_bottleneck")
    return {"stride_in": "1x1" if value else "3x3"} if isinstance(value, bool) else {}


def stated_input(identity: Identity) -> StatedInput:
    """Return what the file of a network, and the files beside it, state about its input."""
    checkpoint, channels = identity.checkpoint, int(identity.spec["in_channels"])
    config = _config(checkpoint)
    statements = (
        _of_transformers(_json_beside(checkpoint, _PREPROCESSOR), channels).with_origin(
            _PREPROCESSOR
        ),
        _of_timm(config, channels).with_origin(_CONFIG),
        _of_normalizer(identity, channels),
        *_of_class_lists(checkpoint),
    )
    stated = StatedInput()
    for statement in statements:
        stated = stated.completed_by(statement.for_classes(identity.num_classes))
    return stated


def usual_size(identity: Identity) -> int:
    """Return the side of images that networks with this stem usually see, in pixels."""
    return 32 if identity.spec["stem"] == "cifar" else 224


def _as_text(name: str, value: Any) -> str:
    if name == "class_names":
        return f"{len(value)} names of classes ({', '.join(value[:3])}, ...)"
    if name in ("size", "shorter"):
        return f"--{name} {value}"
    return f"--{name} {','.join(f'{number:.6g}' for number in value)}"


def _of_timm(config: Mapping[str, Any], channels: int) -> StatedInput:
    """Read the config.json of timm, and the names of classes of both projects."""
    nested = config.get("pretrained_cfg")
    settings: Mapping[str, Any] = nested if isinstance(nested, dict) else config
    size = _square(settings.get("test_input_size") or settings.get("input_size"))
    crop_pct = _number(settings.get("test_crop_pct") or settings.get("crop_pct"))
    shorter = None
    if size is not None and crop_pct is not None and 0.1 <= crop_pct <= 1:
        shorter = math.floor(size / crop_pct)
    mean, std = _statistics(settings.get("mean"), settings.get("std"), channels, factor=1.0)
    return StatedInput(
        mean=mean, std=std, size=size, shorter=shorter, class_names=_names_in(config, settings)
    )


def _names_in(*tables: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names of classes of timm (label_names), or of transformers (id2label)."""
    for table in tables:
        names = table.get("label_names")
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
        by_number = table.get("id2label")
        if isinstance(by_number, dict):
            ordered = names_by_number(by_number)
            if ordered and not all(_UNNAMED.fullmatch(name) for name in ordered):
                return ordered
    return None


def _of_transformers(settings: Mapping[str, Any], channels: int) -> StatedInput:
    """Read the preprocessor_config.json of transformers."""
    if not settings:
        return StatedInput()
    size, shorter = _sizes_of_transformers(settings)
    # Pixel values from 0 to 255 are multiplied by rescale_factor, 1/255 by default.
    factor = 255.0
    if settings.get("do_rescale", True):
        rescale = _number(settings.get("rescale_factor", 1 / 255))
        factor = 0.0 if rescale is None else 255 * rescale
    if settings.get("do_normalize", True):
        mean, std = settings.get("image_mean"), settings.get("image_std")
    else:
        mean, std = [0.0] * channels, [1.0] * channels
    if abs(factor - 1) < 1e-3:  # 1/255 as a decimal number
        factor = 1.0
    means, stds = _statistics(mean, std, channels, factor=factor)
    return StatedInput(mean=means, std=stds, size=size, shorter=shorter)


def _sizes_of_transformers(settings: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the side of the square that the network sees, and the shorter side before the cut."""
    side, crop = _side(settings.get("size")), _side(settings.get("crop_size"))
    if settings.get("do_center_crop") and crop is not None:
        return crop, max(crop, side or crop)
    if side is None or not settings.get("do_resize", True):
        return None, None
    crop_pct = _number(settings.get("crop_pct"))
    kind = str(settings.get("image_processor_type") or settings.get("feature_extractor_type"))
    if crop_pct is None and kind.startswith("ConvNext"):
        crop_pct = _CROP_PCT
    is_cut = crop_pct is not None and 0.1 <= crop_pct <= 1 and side < _FIRST_UNCUT_PX
    return side, int(side / crop_pct) if is_cut and crop_pct is not None else side


def _of_normalizer(identity: Identity, channels: int) -> StatedInput:
    """Read mean and deviation of a normalizer beside the network, such as new_mean and new_std.

    Values of pixels from 0 to 255 are passed over: their order of colors is not known.
    """
    for name, partner in _statistics_beside(identity):
        tensors = [identity.tensors[each] for each in (name, partner)]
        if all(tensor.num_values in (1, channels) for tensor in tensors):
            values = [tensor.read().double().flatten().tolist() for tensor in tensors]
            mean, std = _statistics(values[0], values[1], channels, factor=1.0)
            return StatedInput(mean=mean, std=std).with_origin(f"{name} beside the network")
    return StatedInput()


def _statistics_beside(identity: Identity) -> Iterator[tuple[str, str]]:
    """Yield names of means, each with the name of the deviations beside it."""
    for name in identity.beside:
        path, _, leaf = name.rpartition(".")
        for mean, deviations in _NORMALIZER_LEAVES.items():
            for deviation in deviations:
                partner = f"{path}.{leaf.replace(mean, deviation)}".removeprefix(".")
                if leaf.endswith(mean) and partner in identity.beside:
                    yield name, partner


def _of_class_lists(checkpoint: Checkpoint) -> Iterator[StatedInput]:
    for entry, names in checkpoint.class_lists.items():
        yield StatedInput(class_names=names).with_origin(f"its entry {entry!r}")


def _statistics(
    mean: Any, std: Any, channels: int, *, factor: float
) -> tuple[Numbers, Numbers] | tuple[None, None]:
    """Return mean and deviation of pixels from 0 to 1, or None for both.

    Args:
        factor: The values are of pixels that were multiplied by it.
    """
    means, stds = _numbers(mean, channels), _numbers(std, channels)
    if means is None or stds is None or not factor > 0:
        return None, None
    scaled = [tuple(float(f"{value / factor:.6g}") for value in each) for each in (means, stds)]
    if all(0 <= value <= 1 for value in scaled[0]) and all(
        1e-6 <= value <= 1 for value in scaled[1]
    ):
        return scaled[0], scaled[1]
    return None, None


def _numbers(value: Any, channels: int) -> Numbers | None:
    """Return one number for each channel."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    numbers = [_number(each) for each in values]
    if len(numbers) not in (1, channels):
        return None
    finite = [number for number in numbers if number is not None]
    if len(finite) != len(numbers):
        return None
    return tuple(finite if len(finite) == channels else finite * channels)


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < 1e9 and math.isfinite(value) else None


def _square(shape: Any) -> int | None:
    """Return the side of a shape [channels, height, width] of a square."""
    if not isinstance(shape, list | tuple) or len(shape) != 3 or shape[1] != shape[2]:
        return None
    return _side(shape[1])


def _side(value: Any) -> int | None:
    """Return a side in pixels from a number, {"shortest_edge": 224} or {"height", "width"}."""
    if isinstance(value, dict):
        height, width = value.get("height"), value.get("width")
        value = value.get("shortest_edge", height if height == width else None)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and 1 <= value <= _LARGEST_PX else None


def _architectures(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Yield where an architecture is stated, and its name."""
    for entry, text in (*checkpoint.texts.items(), *checkpoint.metadata.items()):
        if entry.rpartition(".")[2] in _ARCHITECTURE_KEYS:
            yield f"its entry {entry!r}", text
    architecture = _config(checkpoint).get("architecture")
    if isinstance(architecture, str):
        yield _CONFIG, architecture


def _config(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return _json_beside(checkpoint, _CONFIG)


def _json_beside(checkpoint: Checkpoint, name: str) -> Mapping[str, Any]:
    """Return the JSON object in a file beside the weights of a folder; else an empty one."""
    path = checkpoint.path.with_name(name)
    if checkpoint.path.name not in FILES_OF_FOLDERS or not path.is_file():
        return {}
    try:
        if path.stat().st_size > _LARGEST_CONFIG_BYTES:
            return {}
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}  # the weights do not need it
    return content if isinstance(content, dict) else {}
