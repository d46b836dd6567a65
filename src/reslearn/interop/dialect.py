"""Dialects: how a project names and stores the weights of the networks that reslearn builds.

A native name is the name of a tensor in reslearn; a foreign name is its name in the project. Each
dialect is a TOML file in dialects/ with these keys and tables:

title, source, example The project, the source that the names were checked against, and a network
    that it has. "installed" means that names and shapes were recorded from the installed package.
    "read" means that they were taken from the source code at that commit. like, replaces_layers A
    dialect whose tables this one extends. With replaces_layers, [layers] is not extended but
    replaced. containers, wrapper File formats that the project reads, the usual one first, and
    the key that holds the state dict. missing, written_extra Leaves that the project does not
    store, and tensors of [extra] that it needs in a written file. [layers] Native layer = foreign
    layer. {stage}, {block} and {n} stand for numbers and occur on both sides. The foreign side
    may count from another number ({stage-1}) or in letters: {block:letter} is a, b, c from 0,
    {n:letter1} is a, b, c from 1, {block:numbered} is a, b1, b2. An empty foreign layer ("")
    means that the project does not have the layer. [leaves] Foreign names of the tensors of a
    layer, where they differ from torch's. "{}" stands for the layer. [transforms] How values are
    stored: bgr, hwio, transposed or kernel_1x1. [extra] Tensors that reslearn's networks do not
    have. bn.factor divides statistics (Caffe). conv.bias is subtracted from the running mean of
    the batch norm after the convolution (Keras). [spec] Switches of the project's networks, each
    a value or a list of allowed values, the usual one first. They say what the weights cannot
    show, and what a network must have to be written for the project. [preprocess] Mean and
    standard deviation of each channel, of pixel values from 0 to 1, red first.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any

import torch
from torch import Tensor

# The name of the dialect of a file that was read by its structure.
BY_STRUCTURE = "structure"
FIRST_CONVOLUTIONS = ("stem.conv.weight", "stem.conv1.weight")
_UNSUPPORTED = "unsupported.toml"
_LEAVES = {
    "conv": ("weight", "bias"),
    "bn": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    "fc": ("weight", "bias"),
}
_PLACEHOLDER = re.compile(r"\{(\w+)([+-]\d+|:\w+)?\}")
_NUMBER_PATTERNS = {":letter": "[a-z]", ":letter1": "[a-z]", ":numbered": "a|b[0-9]+"}


@dataclass(frozen=True)
class _Rule:
    """The names of one kind of tensor, as patterns of both names and as functions between them.

    Attributes:
        native_pattern: Its groups are called stage, block and n.
        parse_foreign: Returns the numbers in a foreign name, or None if the project would not
            write it.
    """

    native_pattern: re.Pattern[str]
    foreign_pattern: re.Pattern[str]
    native_name: Callable[[Mapping[str, int]], str]
    foreign_name: Callable[[Mapping[str, int]], str]
    parse_foreign: Callable[[re.Match[str]], dict[str, int] | None]


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """The names and the layout of a project's weights. See the top of this file.

    Attributes:
        notes: Sentences about all networks of the project.
        bottleneck_notes: Sentences about its networks with bottlenecks.
        exact_names: For one file that was read by its structure: the name in the file of each
            native name. They stand instead of rules.
    """

    name: str
    title: str
    source: str
    example: str
    containers: tuple[str, ...]
    spec: Mapping[str, Any]
    layers: Mapping[str, str]
    leaves: Mapping[str, str]
    transforms: Mapping[str, tuple[str, ...]]
    extra: Mapping[str, str]
    written_extra: tuple[str, ...]
    missing: tuple[str, ...]
    preprocess: Mapping[str, Any]
    wrapper: str
    notes: tuple[str, ...] = ()
    bottleneck_notes: tuple[str, ...] = ()
    rules: tuple[_Rule, ...] = field(repr=False, default=())
    exact_names: Mapping[str, str] = field(repr=False, default_factory=dict)

    @property
    def has_head(self) -> bool:
        return self.foreign_name("head.fc.weight") is not None

    def foreign_name(self, name: str) -> str | None:
        """Translate a native name, or a name of [extra]; None if the project has no such tensor.

        Names of [extra] are the native layer and "factor" or "bias".
        """
        if self.exact_names:
            return self.exact_names.get(name)
        for rule in self.rules:
            match = rule.native_pattern.fullmatch(name)
            if match:
                numbers = {key: int(value) for key, value in match.groupdict().items()}
                return rule.foreign_name(numbers)
        return None

    def file_name(self, name: str, prefix: str) -> str | None:
        """Translate a native name to the name in a file whose names begin with `prefix`."""
        if self.exact_names:
            return self.exact_names.get(name)
        foreign_name = self.foreign_name(name)
        return prefix + foreign_name if foreign_name else None

    def native_name(self, name: str) -> str | None:
        """Translate a foreign name; None if the project has no such tensor."""
        for rule in self.rules:
            match = rule.foreign_pattern.fullmatch(name)
            numbers = rule.parse_foreign(match) if match else None
            if numbers is not None:
                return rule.native_name(numbers)
        return None

    def convert_layout(self, name: str, tensor: Tensor, *, to_native: bool) -> Tensor:
        """Convert a tensor with this native name between the foreign and the native layout."""
        layer, leaf = name.rsplit(".", 1)
        transforms = self.transforms.get(f"{_layer_kind(layer)}.{leaf}", ())
        if name in FIRST_CONVOLUTIONS:
            transforms = (*transforms, *self.transforms.get("first.weight", ()))
        for transform in transforms if to_native else reversed(transforms):
            from_foreign, from_native = _TRANSFORMS[transform]
            tensor = from_foreign(tensor) if to_native else from_native(tensor)
        return tensor.contiguous()


def _swap_red_and_blue(weight: Tensor) -> Tensor:
    """Reverse the input channels; a weight with one input channel stays."""
    return weight.flip(1)


# From the foreign layout to the native layout, and back.
_TRANSFORMS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "bgr": (_swap_red_and_blue, _swap_red_and_blue),
    "hwio": (lambda weight: weight.permute(3, 2, 0, 1), lambda weight: weight.permute(2, 3, 1, 0)),
    "transposed": (torch.t, torch.t),
    "kernel_1x1": (lambda weight: weight.squeeze((2, 3)), lambda weight: weight[:, :, None, None]),
}


def native_shape(dialect: Dialect, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the native shape of a tensor whose foreign shape is `shape`.

    A shape that cannot be converted is returned unchanged, so that a later comparison reports it.
    """
    if not dialect.transforms:
        return shape
    try:
        tensor = torch.empty(shape, device="meta")
        return tuple(dialect.convert_layout(name, tensor, to_native=True).shape)
    except (RuntimeError, IndexError):
        return shape


@cache
def dialects() -> dict[str, Dialect]:
    """Return the dialects that are read and written, by name."""
    folder = resources.files("reslearn.interop") / "dialects"
    tables: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml") and file.name != _UNSUPPORTED:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
            tables[file.name.removesuffix(".toml")] = table
    return {name: _make_dialect(name, tables) for name in tables}


@cache
def unsupported() -> dict[str, str]:
    """Return the dialects that are not supported, each with the reason."""
    file = resources.files("reslearn.interop") / "dialects" / _UNSUPPORTED
    reasons = tomllib.loads(file.read_text(encoding="utf-8"))
    return {str(name): str(reason) for name, reason in reasons.items()}


def dialect_named(name: str) -> Dialect:
    """Return a dialect; raise ValueError with the known names if `name` is not one of them."""
    by_name = dialects()
    if name not in by_name:
        reason = f" ({unsupported()[name]})" if name in unsupported() else ""
        raise ValueError(f"no dialect {name!r}{reason}; dialects are {', '.join(by_name)}")
    return by_name[name]


def _make_dialect(name: str, tables: Mapping[str, Mapping[str, Any]]) -> Dialect:
    table = tables[name]
    parent = tables.get(str(table.get("like")), {})

    def inherited(key: str, default: Any) -> Any:
        return table.get(key, parent.get(key, default))

    def merged(key: str) -> dict[str, Any]:
        return {**parent.get(key, {}), **table.get(key, {})}

    dialect = Dialect(
        name=name,
        title=table["title"],
        source=table["source"],
        example=table["example"],
        containers=tuple(inherited("containers", ("pth", "safetensors"))),
        spec=merged("spec"),
        layers=dict(table["layers"]) if table.get("replaces_layers") else merged("layers"),
        leaves=merged("leaves"),
        transforms={key: tuple(value) for key, value in merged("transforms").items()},
        extra=merged("extra"),
        written_extra=tuple(table.get("written_extra", ())),
        missing=tuple(inherited("missing", ())),
        preprocess=inherited("preprocess", {}),
        notes=tuple(table.get("notes", ())),
        bottleneck_notes=tuple(table.get("bottleneck_notes", ())),
        wrapper=table.get("wrapper", ""),
    )
    return replace(dialect, rules=tuple(_rules(dialect)))


def _rules(dialect: Dialect) -> Iterator[_Rule]:
    for native_layer, foreign_layer in dialect.layers.items():
        if not foreign_layer:
            continue
        kind = _layer_kind(native_layer)
        for leaf in _LEAVES[kind]:
            key = f"{kind}.{leaf}"
            if leaf not in dialect.missing and key not in dialect.extra:
                template = dialect.leaves.get(key, "{}." + leaf)
                yield _rule(f"{native_layer}.{leaf}", template.replace("{}", foreign_layer))
        for key, template in dialect.extra.items():
            extra_kind, leaf = key.split(".")
            if extra_kind == kind:
                yield _rule(f"{native_layer}.{leaf}", template.replace("{}", foreign_layer))


def _rule(native: str, foreign: str) -> _Rule:
    """Make the rule of two names with placeholders."""
    placeholders = _PLACEHOLDER.findall(foreign)

    def parse_foreign(match: re.Match[str]) -> dict[str, int] | None:
        numbers: dict[str, int] = {}
        for index, (name, form) in enumerate(placeholders):
            value = _parse_number(match[f"f{index}"], form)
            if value is None or numbers.setdefault(name, value) != value:
                return None
        return numbers

    def foreign_name(numbers: Mapping[str, int]) -> str:
        return _PLACEHOLDER.sub(
            lambda match: _format_number(numbers[match[1]], match[2] or ""), foreign
        )

    def native_group(index: int, name: str, form: str) -> str:
        return rf"(?P<{name}>\d+)"

    def foreign_group(index: int, name: str, form: str) -> str:
        return rf"(?P<f{index}>{_NUMBER_PATTERNS.get(form, '[0-9]+')})"

    return _Rule(
        native_pattern=_pattern(native, native_group),
        foreign_pattern=_pattern(foreign, foreign_group),
        native_name=lambda numbers: _PLACEHOLDER.sub(lambda match: str(numbers[match[1]]), native),
        foreign_name=foreign_name,
        parse_foreign=parse_foreign,
    )


def _pattern(template: str, group: Callable[[int, str, str], str]) -> re.Pattern[str]:
    """Return a pattern of a name in which `group` gives the pattern of each placeholder."""
    parts, position = [], 0
    for index, match in enumerate(_PLACEHOLDER.finditer(template)):
        parts.append(re.escape(template[position : match.start()]))
        parts.append(group(index, match[1], match[2] or ""))
        position = match.end()
    return re.compile("".join([*parts, re.escape(template[position:])]))


def _format_number(number: int, form: str) -> str:
    """Return a number as the project writes it."""
    if form in (":letter", ":letter1"):
        return chr(ord("a") + number - (form == ":letter1"))
    if form == ":numbered":
        return "a" if number == 0 else f"b{number}"
    return str(number + int(form or 0))


def _parse_number(text: str, form: str) -> int | None:
    """Invert `_format_number`; return None for text that the project would not write."""
    if form in (":letter", ":letter1"):
        number = ord(text) - ord("a") + (form == ":letter1")
    elif form == ":numbered":
        number = 0 if text == "a" else int(text[1:])
    else:
        number = int(text[:9]) - int(form or 0)
    return number if number >= 0 and _format_number(number, form) == text else None


def _layer_kind(layer: str) -> str:
    """Return "conv", "bn" or "fc"."""
    last_part = layer.rsplit(".", 1)[-1]
    return next(kind for kind in _LEAVES if last_part.startswith(kind))
