"""Stand-ins for the objects of a pickle, and the few functions whose results are read.

A pickle names functions and classes. Each name becomes a `PickledName`, which holds two texts.
Only the names in `PLAIN_FUNCTIONS`, `NUMPY_FUNCTIONS` and `TORCH_FUNCTIONS` have a function of
ours, which returns a plain value or a tensor. Every other object becomes a `StandIn`: a record of
what the pickle says about it. Nothing is imported, and no attribute of a stand-in is called.
"""

import datetime
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn, Protocol

# Python needs about as many bytes for a stand-in, an empty set, and an item of a dict or set.
STAND_IN_BYTES = 200
SET_BYTES = 240
ITEM_BYTES = 100
# resnet1202 with momentum, second moments and an average takes 60,000 calls; as a pickled
# module with an optimizer, 200,000.
_MAX_CALLS = 500_000
# Beside copies of parts of the pickle, which may have twice its length.
_FREE_BYTES = 64 * 2**20
LONGEST_PRINTED = 200


def refuse(reason: str) -> NoReturn:
    """Raise UnpicklingError with this reason, which must be one line about the pickle."""
    raise pickle.UnpicklingError(reason)


class Allowance:
    """Limits how much the instructions of a pickle may create.

    A pickle may refer to one text of a megabyte a thousand times. If each reference became an
    array, the arrays would take a gigabyte. A call takes three bytes of a file, and its stand-in
    two hundred bytes of memory.

    Args:
        num_bytes: Length of the pickle.
    """

    def __init__(self, num_bytes: int) -> None:
        # The content may be a text and the bytes to which it is encoded.
        self._bytes = 2 * num_bytes + _FREE_BYTES
        self._calls = _MAX_CALLS

    def take(self, *, num_bytes: int = 0, num_calls: int = 0) -> None:
        """Count bytes of memory and calls; raise UnpicklingError if they exceed the allowance."""
        self._bytes -= num_bytes
        self._calls -= num_calls
        if self._bytes < 0:
            refuse("it expands to more than it holds by repeating its parts")
        if self._calls < 0:
            refuse(f"it creates more than {_MAX_CALLS:,} objects, more than any checkpoint")


class CallContext(Protocol):
    """The part of the machine in pickles.py that functions may use."""

    allowance: Allowance

    def call(self, function: Any, arguments: Any) -> Any:
        """Return the result of a function that may be called, or else a stand-in."""

    def stand_in(self, name: str, arguments: tuple[Any, ...]) -> "StandIn":
        """Return a stand-in, counted and listed under this name."""


class PickledName:
    """The name of a function or class in a pickle.

    Attributes:
        text: Module and name, such as "torch.nn.modules.conv.Conv2d".
        function: The function of ours that is called in its place; None for a stand-in.
    """

    __slots__ = ("function", "text")

    def __init__(self, text: str, function: Callable[..., Any] | None = None) -> None:
        self.text = text
        self.function = function


class StandIn:
    """An inert object in the place of an object that is not read.

    Attributes:
        name: The name of the class, or of the function that would create the object.
        arguments: The arguments of that class or function.
        state: The object's attributes, usually a dict; None if the pickle gives none.
        elements: The elements, if the object is a list or set; None if there are none.
        pairs: The items, if the object is a dict; None if there are none.
    """

    __slots__ = ("arguments", "elements", "name", "pairs", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None
        self.elements: list[Any] | None = None
        self.pairs: dict[Any, Any] | None = None

    def __repr__(self) -> str:
        return f"<stand-in for {self.name}>"


class ObjectKey:
    """A key of a dict or set, compared by identity: a tuple, for example.

    The hash of a tuple recurses through all tuples in it, in C and without a limit. A pickle of a
    few bytes can nest tuples so deeply that the hash overflows the stack, or never ends.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def key_of(value: Any) -> Any:
    """Return a value as a key: texts, bytes and usual numbers as they are, others by identity."""
    if value is None or type(value) in (str, bytes, float, bool):
        return value
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    return value if isinstance(value, StandIn | PickledName) else ObjectKey(value)


def describe(value: Any) -> str:
    """Return what a value is, for a message. A value from a file may be too deep to be printed."""
    if isinstance(value, StandIn):
        return f"an object of {value.name}"[:LONGEST_PRINTED]
    if isinstance(value, PickledName):
        return f"the name {value.text}"[:LONGEST_PRINTED]
    if type(value) is str:
        return repr(value[:LONGEST_PRINTED])
    if value is None:
        return "None"
    if type(value) in (int, float, bool):
        return "a number"
    return f"a {type(value).__name__.removesuffix('Reference').lower()}"


def decode_key(key: object) -> str:
    """Return a key of a dict as text; Python 2 wrote bytes."""
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _items_of(context: CallContext, items: Any) -> list[Any]:
    """Return the elements of a list, tuple or set, whose copy counts."""
    if type(items) not in (list, tuple, set, frozenset, dict):
        refuse(f"it makes a container of {describe(items)}")
    context.allowance.take(num_bytes=ITEM_BYTES * len(items))
    return list(items)


def _set(context: CallContext, items: Any = ()) -> set[Any]:
    context.allowance.take(num_bytes=SET_BYTES)
    return {key_of(item) for item in _items_of(context, items)}


def _list(context: CallContext, items: Any = (), *_arguments: Any) -> list[Any]:
    """Stand in for `list` and `collections.deque`, whose greatest length is not needed."""
    return _items_of(context, items)


def _dict(context: CallContext, items: Any = ()) -> dict[Any, Any]:
    """Stand in for `dict` and `collections.OrderedDict`; Python 2 wrote a list of pairs."""
    if type(items) is dict:
        context.allowance.take(num_bytes=ITEM_BYTES * len(items))
        return dict(items)
    pairs = _items_of(context, items)
    if not all(type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs):
        refuse("it makes a dict of something other than pairs")
    return {key_of(key): value for key, value in pairs}


def _default_dict(context: CallContext, *arguments: Any) -> dict[Any, Any]:
    """Stand in for `collections.defaultdict`: the function for missing keys is left out."""
    return _dict(context, *arguments[1:])


def _text(_context: CallContext, text: Any = "", *_arguments: Any) -> str:
    """Stand in for `torch.torch_version.TorchVersion`, which is a text."""
    if type(text) is not str:
        refuse(f"it makes a text of {describe(text)}")
    return text


def _bytes(context: CallContext, content: Any = b"", *_arguments: Any) -> bytes | bytearray:
    """Stand in for `bytes` and `bytearray`; Python 3 writes a text in Python 2's protocol."""
    if type(content) is str:
        return _encode(context, content)
    return content if isinstance(content, bytes | bytearray) else b""


def _encode(context: CallContext, text: Any, encoding: Any = "latin1") -> bytes:
    """Stand in for `_codecs.encode`, with which Python 3 writes bytes in Python 2's protocol."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        refuse(f"it encodes {describe(text)[:40]} as {describe(encoding)}")
    context.allowance.take(num_bytes=len(text))
    return text.encode("latin-1")


_TIME_TYPES = (
    datetime.datetime,
    datetime.date,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
)


def _time(time_type: type, context: CallContext, *arguments: Any) -> Any:
    """Return a date or a time. If Python refuses the arguments, the object is a stand-in."""
    if all(type(argument) in (int, str, bytes, *_TIME_TYPES) for argument in arguments):
        try:
            return time_type(*arguments)
        except (ValueError, TypeError, OverflowError):
            pass
    return context.stand_in(f"datetime.{time_type.__name__}", arguments)


def _reconstruct_object(
    context: CallContext, name: Any, base: Any = None, state: Any = None
) -> Any:
    """Stand in for `copyreg._reconstructor`, which protocols 0 and 1 use for objects of a class.

    `state` is a value of the built-in class `base`, such as a dict, or None.
    """
    stand_in = context.call(name, () if state is None else (state,))
    if isinstance(stand_in, StandIn) and type(state) is dict:
        stand_in.arguments, stand_in.pairs = (), state
    return stand_in


def _new_object(context: CallContext, name: Any, *arguments: Any) -> Any:
    """Stand in for `copyreg.__newobj__`: an object of a class."""
    return context.call(name, arguments)


def named(
    modules: tuple[str, ...], name: str, function: Callable[..., Any] | None
) -> dict[tuple[str, str], PickledName]:
    """Return a table with one name in several modules: Python 2 and 3 differ, for example."""
    return {(module, name): PickledName(f"{module}.{name}", function) for module in modules}


_BUILTINS = ("builtins", "__builtin__")
_COPYREG = ("copyreg", "copy_reg")


def _base_classes() -> dict[tuple[str, str], PickledName]:
    """Return built-in classes that an object may extend. Their names are usual, and not listed."""
    names: dict[tuple[str, str], PickledName] = {}
    for name in ("object", "str", "unicode", "int", "long", "float", "tuple", "type"):
        names |= named(_BUILTINS, name, None)
    return names


# The functions that a pickle may call, by module and name.
PLAIN_FUNCTIONS: Mapping[tuple[str, str], PickledName] = {
    **named(_BUILTINS, "set", _set),
    **named(_BUILTINS, "frozenset", _set),
    **named(_BUILTINS, "list", _list),
    **named(_BUILTINS, "dict", _dict),
    **named(_BUILTINS, "bytearray", _bytes),
    **named(_BUILTINS, "bytes", _bytes),
    **named(("collections",), "deque", _list),
    **named(("collections",), "OrderedDict", _dict),
    **named(("collections",), "Counter", _dict),
    **named(("collections",), "defaultdict", _default_dict),
    **named(("_codecs",), "encode", _encode),
    **named(("torch.torch_version",), "TorchVersion", _text),
    **_base_classes(),
    **named(_COPYREG, "_reconstructor", _reconstruct_object),
    **named(_COPYREG, "__newobj__", _new_object),
    **{
        ("datetime", kind.__name__): PickledName(f"datetime.{kind.__name__}", partial(_time, kind))
        for kind in _TIME_TYPES
    },
}
