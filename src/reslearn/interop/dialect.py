"""A dialect: how a project names and lays out the weights of the networks that are built here. Each is a TOML file in dialects/.

[layers]      our layer = theirs. Numbers in braces go over: {stage}, {block}, {n}; theirs may count otherwise ({stage-1}) or in letters
              ({block:letter}: a, b, c from 0; {n:letter1}: from 1; {block:numbered}: a, b1, b2); "" is a layer that theirs lack
[leaves]      how a weight of a layer is called, "{}" being the layer; as in torch unless named here
[transforms]  how numbers are laid out: bgr, hwio, transposed, kernel_1x1
[extra]       tensors that we have no place for: bn.factor divides statistics (Caffe), conv.bias is taken off the running mean after it
[spec]        switches that belong to the project's networks: what weights cannot tell, and what a network that is written must have
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

_FIELD = re.compile(r"\{(\w+)([+-]\d+|:\w+)?\}")
_LEAVES = {
    "conv": ("weight", "bias"),
    "bn": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    "fc": ("weight", "bias"),
}


@dataclass(frozen=True)
class _Rule:
    """One of our names, with leaf, and theirs; both as patterns whose groups are numbers, and as functions from numbers to text."""

    ours: re.Pattern[str]
    theirs: re.Pattern[str]
    to_ours: Callable[[Mapping[str, int]], str]
    to_theirs: Callable[[Mapping[str, int]], str]
    read_theirs: Callable[[re.Match[str]], dict[str, int] | None]


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """See the top of this file. `spec` holds a value, or a list of those that occur, the usual one first."""

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
    notes: tuple[str, ...]
    wrapper: str
    rules: tuple[_Rule, ...] = field(repr=False, default=())

    @property
    def has_head(self) -> bool:
        return self.theirs("head.fc.weight") is not None

    def theirs(self, name: str) -> str | None:
        """Their name of our tensor (or of "layer.factor", "layer.bias" as in [extra]), None where they have no such tensor."""
        for rule in self.rules:
            if match := rule.ours.fullmatch(name):
                return rule.to_theirs({key: int(value) for key, value in match.groupdict().items()})
        return None

    def ours(self, name: str) -> str | None:
        """Our name of their tensor, None where it is none of theirs."""
        for rule in self.rules:
            if (match := rule.theirs.fullmatch(name)) and (
                numbers := rule.read_theirs(match)
            ) is not None:
                return rule.to_ours(numbers)
        return None

    def change(self, name: str, tensor: Tensor, *, to_ours: bool) -> Tensor:
        """The tensor `name` (ours), laid out as ours or as theirs."""
        names = self.transforms.get(_kind_and_leaf(name), ())
        if _is_first(name):
            names = (*names, *self.transforms.get("first.weight", ()))
        for transform in names if to_ours else reversed(names):
            tensor = _TRANSFORMS[transform][0 if to_ours else 1](tensor)
        return tensor.contiguous()


def _is_first(name: str) -> bool:
    return name in ("stem.conv.weight", "stem.conv1.weight")


def _bgr(weight: Tensor) -> Tensor:
    """Blue, green, red to red, green, blue and back: nothing to do for one channel."""
    return weight.flip(1)


_TRANSFORMS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "bgr": (_bgr, _bgr),
    "hwio": (lambda weight: weight.permute(3, 2, 0, 1), lambda weight: weight.permute(2, 3, 1, 0)),
    "transposed": (torch.t, torch.t),
    "kernel_1x1": (lambda weight: weight.squeeze((2, 3)), lambda weight: weight[:, :, None, None]),
}


def shape_for_ours(dialect: Dialect, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that our tensor `name` has where theirs has `shape`; `shape` itself for what cannot be laid out so."""
    if not dialect.transforms:
        return shape
    try:
        return tuple(dialect.change(name, torch.empty(shape, device="meta"), to_ours=True).shape)
    except (RuntimeError, IndexError):
        return shape


@cache
def dialects() -> dict[str, Dialect]:
    """The dialects that ship, by name."""
    folder = resources.files("reslearn.interop") / "dialects"
    tables = {
        file.name.removesuffix(".toml"): tomllib.loads(file.read_text(encoding="utf-8"))
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".toml") and file.name != "unsupported.toml"
    }
    return {name: _dialect(name, tables) for name in tables}


@cache
def unsupported() -> dict[str, str]:
    """Dialects that are not read, each with the reason."""
    text = (resources.files("reslearn.interop") / "dialects" / "unsupported.toml").read_text(
        encoding="utf-8"
    )
    return {str(name): str(reason) for name, reason in tomllib.loads(text).items()}


def dialect_named(name: str) -> Dialect:
    """ValueError with those that there are for an unknown name."""
    known = dialects()
    if name not in known:
        why = f": {unsupported()[name]}" if name in unsupported() else ""
        raise ValueError(f"no dialect {name!r}{why}; there are {', '.join(known)}")
    return known[name]


def _dialect(name: str, tables: Mapping[str, Mapping[str, Any]]) -> Dialect:
    table = tables[name]
    like = tables.get(str(table.get("like")), {})
    merged = {
        key: {**like.get(key, {}), **table.get(key, {})}
        for key in ("spec", "layers", "leaves", "transforms", "extra")
    }
    if table.get("replaces_layers"):
        merged["layers"] = dict(table["layers"])
    dialect = Dialect(
        name=name,
        title=table["title"],
        source=table["source"],
        example=table["example"],
        containers=tuple(table.get("containers", like.get("containers", ("pth", "safetensors")))),
        spec=merged["spec"],
        layers=merged["layers"],
        leaves=merged["leaves"],
        transforms={key: tuple(value) for key, value in merged["transforms"].items()},
        extra=merged["extra"],
        written_extra=tuple(table.get("written_extra", ())),
        missing=tuple(table.get("missing", like.get("missing", ()))),
        preprocess=table.get("preprocess", like.get("preprocess", {})),
        notes=tuple(table.get("notes", ())),
        wrapper=table.get("wrapper", ""),
    )
    return replace(dialect, rules=tuple(_rules(dialect)))


def _rules(dialect: Dialect) -> Iterator[_Rule]:
    for ours, theirs in ((ours, theirs) for ours, theirs in dialect.layers.items() if theirs):
        kind = _kind(ours)
        for leaf in _LEAVES[kind]:
            if leaf not in dialect.missing and f"{kind}.{leaf}" not in dialect.extra:
                yield _rule(
                    f"{ours}.{leaf}",
                    dialect.leaves.get(f"{kind}.{leaf}", "{}." + leaf).replace("{}", theirs),
                )
        for extra, template in dialect.extra.items():
            if extra.split(".")[0] == kind:
                yield _rule(f"{ours}.{extra.split('.')[1]}", template.replace("{}", theirs))


def _rule(ours: str, theirs: str) -> _Rule:
    def read(match: re.Match[str]) -> dict[str, int] | None:
        numbers: dict[str, int] = {}
        for index, (name, form) in enumerate(_FIELD.findall(theirs)):
            value = _number(match[f"f{index}"], form)
            if value is None or numbers.setdefault(name, value) != value:
                return None
        return numbers

    return _Rule(
        ours=_pattern(ours, lambda index, name, form: rf"(?P<{name}>\d+)"),
        theirs=_pattern(
            theirs, lambda index, name, form: rf"(?P<f{index}>{_FORMS.get(form, '[0-9]+')})"
        ),
        to_ours=lambda numbers: _FIELD.sub(lambda found: str(numbers[found[1]]), ours),
        to_theirs=lambda numbers: _FIELD.sub(
            lambda found: _text(numbers[found[1]], found[2] or ""), theirs
        ),
        read_theirs=read,
    )


_FORMS = {":letter": "[a-z]", ":letter1": "[a-z]", ":numbered": "a|b[0-9]+"}


def _pattern(template: str, group: Callable[[int, str, str], str]) -> re.Pattern[str]:
    parts, position = [], 0
    for index, found in enumerate(_FIELD.finditer(template)):
        parts += [
            re.escape(template[position : found.start()]),
            group(index, found[1], found[2] or ""),
        ]
        position = found.end()
    return re.compile("".join([*parts, re.escape(template[position:])]))


def _text(number: int, form: str) -> str:
    """A number as they write it."""
    if form in (":letter", ":letter1"):
        return chr(ord("a") + number - (form == ":letter1"))
    if form == ":numbered":
        return "a" if number == 0 else f"b{number}"
    return str(number + int(form or 0))


def _number(text: str, form: str) -> int | None:
    """The inverse of `_text`; None where they would not write it so."""
    if form in (":letter", ":letter1"):
        number = ord(text) - ord("a") + (form == ":letter1")
    elif form == ":numbered":
        number = 0 if text == "a" else int(text[1:])
    else:
        number = int(text[:9]) - int(form or 0)
    return number if number >= 0 and _text(number, form) == text else None


def _kind(layer: str) -> str:
    last = layer.rsplit(".", 1)[-1]
    return next(kind for kind in _LEAVES if last.startswith(kind))


def _kind_and_leaf(name: str) -> str:
    layer, leaf = name.rsplit(".", 1)
    return f"{_kind(layer)}.{leaf}"
