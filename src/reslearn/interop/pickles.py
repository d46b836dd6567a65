"""Read pickles without running anything in them.

A pickle is a program for a machine with a stack, and it may call any function by name. This file
is such a machine that cannot: it builds numbers, texts, lists, dicts, sets and descriptions of
tensors. Names of functions and classes are looked up in the table of a few functions of ours.
Objects of all other names become inert stand-ins (stand_ins.py). Python's own unpickler is not
used, because it imports names and calls methods of the objects that it creates.

A hostile file of a few bytes could still use up memory or time. So these limits hold:

- The number of instructions. Each may create an object of two hundred bytes.
- The number of calls, and the memory for copies and stand-ins (`Allowance`).
- Numbers have at most 1,024 bits, and names at most 1,000 characters.
- Keys other than texts and usual numbers are compared by identity, because the hash of nested
  tuples overflows the C stack.
"""

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reslearn.interop.numpy_pickles import NUMPY_FUNCTIONS
from reslearn.interop.pickle_machine import PickleMachine, Resolve
from reslearn.interop.stand_ins import PLAIN_FUNCTIONS, SET_BYTES, key_of, refuse

# A tensor takes 30 instructions. resnet1202 with two moments and an average takes 0.8 million.
_MAX_INSTRUCTIONS = 2_000_000
_MOST_BITS = 1024
_LATEST_PROTOCOL = 5


@dataclass(frozen=True, kw_only=True)
class Unpickled:
    """The content of a pickle.

    Attributes:
        value: The object in the pickle, made of plain values, tensors and stand-ins.
        unknown_objects: Names of the functions and classes that stand-ins replace, in the order of
            the pickle.
        end: Position of the first byte after the pickle.
    """

    value: Any
    unknown_objects: tuple[str, ...]
    end: int


def read_pickle(
    content: bytes,
    *,
    start: int = 0,
    functions: Mapping[tuple[str, str], Any] | None = None,
    persistent_load: Resolve | None = None,
) -> Unpickled:
    """Read the pickle that begins at byte `start` of `content`.

    Args:
        functions: More functions and types that a pickle may name, by module and name.
        persistent_load: Resolves references to objects outside the pickle, such as torch's
            storages.

    Raises:
        pickle.UnpicklingError: If the pickle is damaged, or exceeds a limit. The message is one
            line.
    """
    table = {**PLAIN_FUNCTIONS, **NUMPY_FUNCTIONS, **(functions or {})}
    machine = PickleMachine(len(content), table, persistent_load)
    file = io.BytesIO(content)
    file.seek(start)
    try:
        _follow(file, machine)
        value = machine.stack.pop()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # damaged content can raise any exception
        reason = f"{type(error).__name__}: {error}"[:200]
        raise pickle.UnpicklingError(f"it is damaged ({reason})") from None
    return Unpickled(value=value, unknown_objects=tuple(machine.unknown_objects), end=file.tell())


def _follow(file: io.BytesIO, machine: PickleMachine) -> None:
    """Apply the instructions in a file to a machine."""
    for number, (opcode, argument, _position) in enumerate(pickletools.genops(file)):
        if number >= _MAX_INSTRUCTIONS:
            refuse(f"it has more than {_MAX_INSTRUCTIONS:,} instructions, more than any checkpoint")
        instruction = _INSTRUCTIONS.get(opcode.name)
        if instruction is None:
            refuse(f"it uses the instruction {opcode.name}, which no file of weights needs")
        instruction(machine, argument)


_Instruction = Callable[[PickleMachine, Any], None]


def _push(machine: PickleMachine, argument: Any) -> None:
    machine.push(argument)


def _push_integer(machine: PickleMachine, argument: int) -> None:
    if argument.bit_length() > _MOST_BITS:
        refuse(f"it holds a number of {argument.bit_length():,} bits")
    machine.push(argument)


def _constant(value: Any) -> _Instruction:
    """Return an instruction that puts a value on the stack that cannot change."""
    return lambda machine, _argument: machine.push(value)


def _empty_set(machine: PickleMachine, _argument: Any) -> None:
    machine.allowance.take(num_bytes=SET_BYTES)
    machine.push(set())


def _mark(machine: PickleMachine, _argument: Any) -> None:
    machine.outer_stacks.append(machine.stack)
    machine.stack = []


def _pop(machine: PickleMachine, _argument: Any) -> None:
    """Remove the last object, or the mark if there is no object above it."""
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()


def _pop_mark(machine: PickleMachine, _argument: Any) -> None:
    machine.pop_mark()


def _tuple_of(length: int) -> _Instruction:
    """Return an instruction that makes a tuple of the last `length` objects."""

    def make_tuple(machine: PickleMachine, _argument: Any) -> None:
        items = [machine.stack.pop() for _ in range(length)]
        machine.push(tuple(reversed(items)))

    return make_tuple


def _frozen_set(machine: PickleMachine, _argument: Any) -> None:
    machine.allowance.take(num_bytes=SET_BYTES)
    machine.push({key_of(item) for item in machine.pop_mark()})


def _dict(machine: PickleMachine, _argument: Any) -> None:
    items = machine.pop_mark()
    machine.push({})
    machine.set_items(machine.stack[-1], items)


def _append(machine: PickleMachine, _argument: Any) -> None:
    item = machine.stack.pop()
    machine.extend(machine.stack[-1], [item])


def _appends(machine: PickleMachine, _argument: Any) -> None:
    items = machine.pop_mark()
    machine.extend(machine.stack[-1], items)


def _add_items(machine: PickleMachine, _argument: Any) -> None:
    items = machine.pop_mark()
    machine.add(machine.stack[-1], items)


def _set_item(machine: PickleMachine, _argument: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.set_items(machine.stack[-1], [key, value])


def _set_items(machine: PickleMachine, _argument: Any) -> None:
    items = machine.pop_mark()
    machine.set_items(machine.stack[-1], items)


def _put(machine: PickleMachine, argument: int) -> None:
    if not 0 <= argument <= machine.num_bytes:
        refuse(f"it stores an object under number {str(argument)[:20]}, beyond its length")
    machine.memo[argument] = machine.stack[-1]


def _memoize(machine: PickleMachine, _argument: Any) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _get(machine: PickleMachine, number: int) -> None:
    machine.push(machine.memo[number])


def _global(machine: PickleMachine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.push(machine.name(module, name))


def _stack_global(machine: PickleMachine, _argument: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.push(machine.name(module, name))


def _call(machine: PickleMachine, _argument: Any) -> None:
    arguments, function = machine.stack.pop(), machine.stack.pop()
    machine.push(machine.call(function, arguments))


def _call_with_keywords(machine: PickleMachine, _argument: Any) -> None:
    """Call without the arguments that have names, which only unknown objects have."""
    machine.stack.pop()
    _call(machine, None)


def _call_marked(machine: PickleMachine, _argument: Any) -> None:
    """Call the first object above the mark with the others, as for old classes of Python 2."""
    function, *arguments = machine.pop_mark()
    machine.push(machine.call(function, tuple(arguments)))


def _call_named(machine: PickleMachine, argument: str) -> None:
    arguments = machine.pop_mark()
    _global(machine, argument)
    machine.push(machine.call(machine.stack.pop(), tuple(arguments)))


def _build(machine: PickleMachine, _argument: Any) -> None:
    state = machine.stack.pop()
    machine.set_state(machine.stack[-1], state)


def _protocol(_machine: PickleMachine, argument: int) -> None:
    if argument > _LATEST_PROTOCOL:
        refuse(f"its protocol is {argument}; at most {_LATEST_PROTOCOL} is read")


_PUSHED = (
    "BININT BININT1 BININT2 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT"
)
# The instructions that are left out involve other processes, registries of extensions and buffers
# outside the pickle: EXT1, EXT2, EXT4, NEXT_BUFFER, READONLY_BUFFER and PERSID.
_INSTRUCTIONS: Mapping[str, _Instruction] = {
    **dict.fromkeys(_PUSHED.split(), _push),
    **dict.fromkeys(("INT", "LONG", "LONG1", "LONG4"), _push_integer),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _get),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _call),
    **dict.fromkeys(("FRAME", "STOP"), lambda _machine, _argument: None),
    "NONE": _constant(None),
    "NEWTRUE": _constant(True),
    "NEWFALSE": _constant(False),
    "EMPTY_TUPLE": _constant(()),
    "EMPTY_LIST": lambda machine, _argument: machine.push([]),
    "EMPTY_DICT": lambda machine, _argument: machine.push({}),
    "EMPTY_SET": _empty_set,
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _argument: machine.push(machine.stack[-1]),
    "TUPLE": lambda machine, _argument: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": lambda machine, _argument: machine.push(machine.pop_mark()),
    "DICT": _dict,
    "FROZENSET": _frozen_set,
    "APPEND": _append,
    "APPENDS": _appends,
    "ADDITEMS": _add_items,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "MEMOIZE": _memoize,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "NEWOBJ_EX": _call_with_keywords,
    "OBJ": _call_marked,
    "INST": _call_named,
    "BUILD": _build,
    "BINPERSID": lambda machine, _argument: machine.resolve_last(),
    "PROTO": _protocol,
}
