"""Find the tables of named tensors in an unpickled object.

The object may be a table itself. Tables may lie in dicts, lists, tuples and attributes of unknown
objects, several levels deep. A pickled module is a table too: the parameters and buffers of the
module and of its submodules, under the names that its `state_dict()` would have.

An object in a pickle may lie in many places at once, even in itself. So the number of steps, of
tables and of levels is limited.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reslearn.interop.stand_ins import StandIn, decode_key, describe
from reslearn.interop.stored import LayerSettings, StoredTensor, is_average

# A pickle of a few bytes may hold one state dict a thousand times, each in a thousand others.
_MAX_TABLES = 1_000
_MAX_STEPS = 2_000_000
# resnet1202 has 7,200 tensors in 6,000 modules.
_MAX_MODULE_TENSORS = 100_000
_MAX_MODULES = 100_000
_MAX_LEVELS = 8
_MAX_MODULE_LEVELS = 64
# Longer lists hold data or the state of an optimizer, not networks.
_LONGEST_LIST = 100
_LONGEST_NAME = 1_000
_LONGEST_TEXT = 200
_MAX_TEXTS = 1_000
_LARGEST_SETTING = 1_000  # pixels

Table = dict[str, StoredTensor]


class NoTableError(ValueError):
    """An intact pickle holds a number, a text or a tensor, for example."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """The tables in an object.

    Attributes:
        entries: Tables by their place: "" for the object itself, "state_dict", "models.0", ...
        small: Tables with too few matrices for a network, if another table has more.
        other_keys: Names in the object that hold no table.
        texts: Short texts in the object and in its parts, by place: "arch", "args.arch".
        settings: Settings of the layers of pickled modules, by entry and by the layer's name.
    """

    entries: Mapping[str, Table]
    small: Mapping[str, Table] = field(default_factory=dict)
    other_keys: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, LayerSettings]] = field(default_factory=dict)


def find_tables(value: Any, locate: Callable[[Any], StoredTensor | None]) -> Tables:
    """Find the tables in an unpickled object.

    Tables of fewer than two matrices, such as the best accuracies of a training, are left out if
    another table has more. The state of optimizers is no table.

    Args:
        locate: Returns the tensor that a part of the object describes, or None.

    Raises:
        NoTableError: If the object cannot hold a table.
        ValueError: If it holds too many.
    """
    search = _Search(locate)
    if _module_state(value) is not None:
        texts = search.texts_of(_children(value) or [])
        entries = {"": search.module_table(value)}
        return Tables(entries=entries, texts=texts, settings=search.settings_of(entries))
    children = _children(value)
    if children is None:
        raise NoTableError(f"it holds {describe(value)}, not a dict of named tensors")
    loose_tensors = search.tensors_of(value, children)
    tables: dict[str, dict[str, Table]] = {}
    for name, child in children:
        if name and name not in loose_tensors:
            tables.setdefault(name, {}).update(search.tables_in(name, child))
    nested: dict[str, Table] = {}
    for tables_of_name in tables.values():
        nested |= tables_of_name
    all_tables = {"": loose_tensors} | nested
    entries = _networks(all_tables)
    names = dict.fromkeys(name for name, _ in children if name)
    other_keys = [
        name
        for name in names
        if entries.keys().isdisjoint({""} if name in loose_tensors else tables[name])
    ]
    return Tables(
        entries=entries,
        small={name: table for name, table in all_tables.items() if name not in entries},
        other_keys=tuple(other_keys),
        texts=search.texts_of(children),
        settings=search.settings_of(entries),
    )


def _networks(tables: Mapping[str, Table]) -> dict[str, Table]:
    """Return the tables that may be networks, or all if none may be."""
    networks = {name: table for name, table in tables.items() if _num_matrices(table) > 1}
    return networks or {name: table for name, table in tables.items() if table}


def _num_matrices(table: Table) -> int:
    return sum(len(tensor.shape) > 1 for tensor in table.values())


class _Search:
    """Counts the steps of one search, and reads each table once."""

    def __init__(self, locate: Callable[[Any], StoredTensor | None]) -> None:
        self._locate = locate
        self._tables: dict[int, Table] = {}
        self._settings: dict[int, dict[str, LayerSettings]] = {}
        self._num_entries = 0
        self._num_steps = 0
        self._num_modules = 0

    def tables_in(self, name: str, value: Any, level: int = 1) -> dict[str, Table]:
        """Return the tables in a part of the object, by their place."""
        if level > _MAX_LEVELS or len(name) > _LONGEST_NAME or _is_optimizer(name, value):
            return {}
        if _module_state(value) is not None:
            return self._entry(name, self.module_table(value))
        children = _children(value)
        if children is None:
            return {}
        tensors = self.tensors_of(value, children) or self._averaged_list(name, value)
        is_table = len(tensors) > 1 or _num_matrices(tensors) == 1
        tables = self._entry(name, tensors) if is_table else {}
        for key, child in children:
            if key and key not in tensors and isinstance(child, _CONTAINERS):
                tables |= self.tables_in(f"{name}.{key}", child, level + 1)
        return tables

    def _entry(self, name: str, table: Table) -> dict[str, Table]:
        if not table:
            return {}
        self._num_entries += 1
        if self._num_entries > _MAX_TABLES:
            raise ValueError(f"it holds more than {_MAX_TABLES} dicts of tensors")
        return {name: table}

    def tensors_of(self, value: Any, children: list[tuple[str, Any]]) -> Table:
        """Return the named tensors directly in a dict or an unknown object with these children."""
        self._count_steps(1 + len(children))
        if isinstance(value, list | tuple):  # its elements have no names
            return {}
        if id(value) not in self._tables:
            table: Table = {}
            for name, child in children:
                stored = self._locate(child)
                if stored is not None:
                    table[name] = stored
            self._tables[id(value)] = table
        return self._tables[id(value)]

    def _averaged_list(self, name: str, value: Any) -> Table:
        """Return the tensors of a list of averages, such as `shadow_params`, by their position."""
        is_list = isinstance(value, list | tuple) and len(value) <= _MAX_MODULE_TENSORS
        if not is_list or not is_average(name.rpartition(".")[2]):
            return {}
        if id(value) not in self._tables:
            self._count_steps(len(value))
            tensors = [self._locate(item) for item in value]
            table = {
                str(position): item for position, item in enumerate(tensors) if item is not None
            }
            self._tables[id(value)] = table if len(table) == len(value) else {}
        return self._tables[id(value)]

    def texts_of(self, children: list[tuple[str, Any]]) -> dict[str, str]:
        """Return the short texts among the parts of an object, and among the parts of those."""
        texts: dict[str, str] = {}
        for name, child in children:
            if type(child) is str:
                _add_text(texts, name, child)
            is_object = isinstance(child, dict | StandIn) and len(name) <= _LONGEST_TEXT
            if is_object and not _is_optimizer(name, child):
                parts = _children(child) or []
                self._count_steps(1 + len(parts))
                for key, text in parts:
                    if type(text) is str:
                        _add_text(texts, f"{name}.{key}", text)
        return texts

    def settings_of(self, entries: Mapping[str, Table]) -> dict[str, dict[str, LayerSettings]]:
        """Return the settings of the layers of the tables that are modules."""
        return {
            name: self._settings[id(table)]
            for name, table in entries.items()
            if id(table) in self._settings
        }

    def module_table(self, module: StandIn) -> Table:
        """Return the parameters and buffers of a pickled module, as `state_dict()` names them."""
        if id(module) not in self._tables:
            table: Table = {}
            self._add_module(table, "", module, level=0)
            self._tables[id(module)] = table
        return self._tables[id(module)]

    def _add_module(self, table: Table, prefix: str, module: Any, *, level: int) -> None:
        state = _module_state(module)
        if state is None:
            return
        self._num_modules += 1
        if self._num_modules > _MAX_MODULES:
            raise ValueError(f"it holds more than {_MAX_MODULES:,} modules")
        if level > _MAX_MODULE_LEVELS or len(prefix) > _LONGEST_NAME:
            raise ValueError("its modules are nested too deeply")
        if settings := _layer_settings(state):
            self._settings.setdefault(id(table), {})[prefix.removesuffix(".")] = settings
        hidden = state.get("_non_persistent_buffers_set")
        hidden_names = hidden if isinstance(hidden, set) else set()
        for kind in ("_parameters", "_buffers"):
            for name, item in self._items_of(state.get(kind)):
                stored = self._locate(item)
                if stored is not None and not (kind == "_buffers" and name in hidden_names):
                    table[prefix + name] = stored
        if len(table) > _MAX_MODULE_TENSORS:
            raise ValueError(f"its module has more than {_MAX_MODULE_TENSORS:,} tensors")
        for name, child in self._items_of(state["_modules"]):
            self._add_module(table, f"{prefix}{name}.", child, level=level + 1)

    def _items_of(self, table: Any) -> list[tuple[str, Any]]:
        """Return the items of a dict of parameters, buffers or submodules."""
        if not isinstance(table, dict):
            return []
        self._count_steps(len(table))
        items = _named_items(table.items())
        if any(len(name) > _LONGEST_NAME for name, _ in items):
            raise ValueError("its module has a part with a very long name")
        return items

    def _count_steps(self, number: int) -> None:
        self._num_steps += number
        if self._num_steps > _MAX_STEPS:
            raise ValueError("its dicts, lists and modules are too many, or hold one another")


def _add_text(texts: dict[str, str], name: str, text: str) -> None:
    if len(texts) < _MAX_TEXTS and max(len(name), len(text)) <= _LONGEST_TEXT:
        texts[name] = text


_CONTAINERS = (dict, list, tuple, StandIn)


def _children(value: Any) -> list[tuple[str, Any]] | None:
    """Return the named parts of a dict, a short list or an unknown object; None for others."""
    if isinstance(value, dict):
        return _named_items(value.items())
    if isinstance(value, list | tuple):
        return _numbered_items(value)
    if not isinstance(value, StandIn):
        return None
    attributes = _attributes(value)
    children = _named_items(attributes.items()) + _named_items((value.pairs or {}).items())
    return children + _numbered_items(value.elements or ()) + _numbered_items(value.arguments)


def _named_items(items: Iterable[tuple[Any, Any]]) -> list[tuple[str, Any]]:
    """Return the items whose key is a name. Keys of optimizer state are numbers.

    Longer names than a file may have are cut, since they may be visited many times.
    """
    longest = _LONGEST_NAME + 1
    return [
        (decode_key(key[:longest]), item) for key, item in items if isinstance(key, str | bytes)
    ]


def _numbered_items(items: list[Any] | tuple[Any, ...]) -> list[tuple[str, Any]]:
    if len(items) > _LONGEST_LIST:
        return []
    return [(str(number), item) for number, item in enumerate(items)]


def _attributes(value: StandIn) -> dict[Any, Any]:
    """Return the attributes of an unknown object. With slots, the state is a pair of dicts."""
    states = value.state if isinstance(value.state, tuple) else (value.state,)
    attributes: dict[Any, Any] = {}
    for state in states[:2]:
        attributes |= state if isinstance(state, dict) else {}
    return attributes


def _module_state(value: Any) -> dict[Any, Any] | None:
    """Return the attributes of a pickled module, or None if `value` is none.

    torch.fx pickles a module as a function with the attributes as its first argument.
    """
    if not isinstance(value, StandIn):
        return None
    for state in (value.state, *value.arguments[:1]):
        if isinstance(state, dict) and isinstance(state.get("_modules"), dict):
            return state
    return None


def _layer_settings(state: dict[Any, Any]) -> LayerSettings:
    """Return the settings of a convolution or a batch norm that change what it computes."""
    settings: dict[str, tuple[int, ...] | float] = {}
    for name in ("stride", "padding", "dilation"):
        value = state.get(name)
        if type(value) is not tuple or [type(number) for number in value] != [int, int]:
            continue
        if all(0 <= number <= _LARGEST_SETTING for number in value):
            settings[name] = value
    if type(state.get("eps")) is float:
        settings["eps"] = state["eps"]
    return settings


def _is_optimizer(name: str, value: Any) -> bool:
    """Return whether a part is the state of an optimizer; fastai's key is "opt"."""
    if "optim" in name.lower() or name.rpartition(".")[2].lower() == "opt":
        return True
    attributes = _attributes(value) if isinstance(value, StandIn) else value
    return isinstance(attributes, dict) and {"state", "param_groups"} <= attributes.keys()
