"""The machine that reads pickles: its stack, its memo, and what its instructions may do.

The machine builds numbers, texts, lists, dicts, sets, descriptions of tensors, and stand-ins. It
imports nothing, and it calls only functions of ours: no method of an object in the pickle is
called, and none is looked up.
"""

from collections.abc import Callable, Mapping
from typing import Any

from reslearn.interop.numpy_pickles import NumpyArray, NumpyType
from reslearn.interop.stand_ins import (
    ITEM_BYTES,
    LONGEST_PRINTED,
    SET_BYTES,
    STAND_IN_BYTES,
    Allowance,
    PickledName,
    StandIn,
    describe,
    key_of,
    refuse,
)

_LONGEST_NAME = 1_000
_MAX_LISTED = 1_000
_PLAIN_TYPES = (dict, list, set, tuple, str, bytes, bytearray, int, float)

Resolve = Callable[[Any], Any]


class PickleMachine:
    """The state of a machine that follows the instructions of a pickle.

    Args:
        num_bytes: Length of the file or of the part of it that holds the pickle.
        functions: Functions and types that the pickle may name, by module and name.
        resolve: Returns the object outside the pickle for a reference; None if there is none.

    Attributes:
        outer_stacks: The objects below each open mark.
        unknown_objects: The first thousand names of functions and classes that are not ours.
    """

    def __init__(
        self, num_bytes: int, functions: Mapping[tuple[str, str], Any], resolve: Resolve | None
    ) -> None:
        self.num_bytes = num_bytes
        self.allowance = Allowance(num_bytes)
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.unknown_objects: dict[str, None] = {}
        self._functions = functions
        self._names: dict[tuple[str, str], PickledName] = {}
        self._resolve = resolve

    def push(self, value: Any) -> None:
        """Put a value on the stack, above the last mark."""
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        """Remove and return the objects above the last mark."""
        items = self.stack
        self.stack = self.outer_stacks.pop()
        return items

    def name(self, module: Any, name: Any) -> Any:
        """Return our function or type of this name, or else a name without a function."""
        if type(module) is not str or type(name) is not str:
            refuse("it names a function by something other than a text")
        length = len(module) + len(name)
        if length > _LONGEST_NAME:
            refuse(f"it names a function by a text of {length:,} characters")
        key = (module, name)
        if key in self._functions:
            return self._functions[key]
        if key not in self._names:
            self.allowance.take(num_bytes=length + 2 * ITEM_BYTES)
            pickled_name = PickledName(_printable_name(f"{module}.{name}"))
            self._list_unknown(pickled_name.text)
            self._names[key] = pickled_name
        return self._names[key]

    def call(self, function: Any, arguments: Any) -> Any:
        """Return the result of our function of this name, or else a stand-in."""
        self.allowance.take(num_calls=1)
        if type(arguments) is not tuple:
            refuse(f"it calls a function with {describe(arguments)}")
        if isinstance(function, PickledName) and function.function is not None:
            return function.function(self, *arguments)
        if isinstance(function, PickledName):
            return self.stand_in(function.text, arguments)
        if isinstance(function, StandIn):
            return self.stand_in(function.name, arguments)
        refuse(f"it calls {describe(function)}, which is not a function")

    def stand_in(self, name: str, arguments: tuple[Any, ...]) -> StandIn:
        """Return a stand-in, counted and listed under this name."""
        self.allowance.take(num_bytes=STAND_IN_BYTES)
        name = _printable_name(name)
        self._list_unknown(name)
        return StandIn(name, arguments)

    def resolve_last(self) -> None:
        """Replace a reference by the object outside the pickle to which it refers."""
        if self._resolve is None:
            refuse("it refers to an object outside the pickle")
        self.push(self._resolve(self.stack.pop()))

    def extend(self, target: Any, items: list[Any]) -> None:
        """Append items to a list, or to the elements of a stand-in."""
        if type(target) is list:
            target.extend(items)
        elif isinstance(target, StandIn):
            if target.elements is None:
                self.allowance.take(num_bytes=ITEM_BYTES)
                target.elements = []
            target.elements.extend(items)
        else:
            refuse(f"it appends to {describe(target)}")

    def add(self, target: Any, items: list[Any]) -> None:
        """Add items to a set, or to the elements of a stand-in."""
        if type(target) is set:
            target.update([key_of(item) for item in items])
        else:
            self.extend(target, items)

    def set_items(self, target: Any, items: list[Any]) -> None:
        """Add keys and values, which alternate, to a dict or to the pairs of a stand-in."""
        if isinstance(target, StandIn):
            if target.pairs is None:
                self.allowance.take(num_bytes=SET_BYTES)
                target.pairs = {}
            target = target.pairs
        if type(target) is not dict:
            refuse(f"it stores items in {describe(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key_of(key)] = value

    def set_state(self, target: Any, state: Any) -> None:
        """Give a stand-in or an array its state. Attributes of plain values are ignored."""
        if isinstance(target, StandIn):
            target.state = state
        elif isinstance(target, NumpyArray | NumpyType):
            target.set_state(self, state)
        elif type(target) not in _PLAIN_TYPES:
            refuse(f"it modifies {describe(target)} after creating it")

    def _list_unknown(self, name: str) -> None:
        if len(self.unknown_objects) < _MAX_LISTED:
            self.unknown_objects[name] = None


def _printable_name(name: str) -> str:
    """Return the beginning of a name in printable characters, for lists and messages."""
    name = name[:LONGEST_PRINTED]
    return name if name.isprintable() else repr(name)[1:-1]
