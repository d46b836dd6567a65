"""Lists of class names in an unpickled object, such as "classes" or "meta.CLASSES"."""

from collections.abc import Iterable, Mapping
from typing import Any

_KEYS = (
    *("classes", "CLASSES", "class_names", "classnames", "label_names", "labels"),
    *("categories", "class_to_idx", "idx_to_class", "id2label"),
)
_MOST_PARTS, _MOST_TRIES = 1_000, 32
_MOST_CLASSES = 100_000
_LONGEST_NAME = 200


def class_lists_of(value: Any) -> dict[str, tuple[str, ...]]:
    """Return the lists of names in a dict and in the dicts directly in it, by their place.

    A list may be a list or tuple of texts, a dict of numbers by text (`class_to_idx`), or a dict of
    texts by number (`idx_to_class`).
    """
    lists: dict[str, tuple[str, ...]] = {}
    if not isinstance(value, dict):
        return lists
    parts = [("", value)]
    for key, part in value.items():
        if isinstance(key, str) and len(key) <= _LONGEST_NAME and isinstance(part, dict):
            parts.append((f"{key}.", part))
    # One dict or list of a small pickle may lie in a million places.
    num_tries = 0
    for prefix, part in parts[:_MOST_PARTS]:
        for name in (key for key in _KEYS if key in part):
            num_tries += 1
            names = _names_of(part[name]) if num_tries <= _MOST_TRIES else None
            if names:
                lists[prefix + name] = names
    return dict(sorted(lists.items()))


def _names_of(content: Any) -> tuple[str, ...] | None:
    if isinstance(content, dict):
        return names_by_number(content)
    if not isinstance(content, list | tuple) or not 1 < len(content) <= _MOST_CLASSES:
        return None
    return _checked(content)


def names_by_number(table: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """Return the names of a dict of numbers by name, or of names by number, in their order.

    Returns:
        None unless the numbers are 0, 1, 2, ...
    """
    if not 1 < len(table) <= _MOST_CLASSES:
        return None
    is_by_name = all(type(number) is int for number in table.values())
    items = [(number, name) for name, number in table.items()] if is_by_name else table.items()
    names: dict[int, Any] = {}
    for number, name in items:
        if type(number) is not int:
            is_digits = isinstance(number, str) and number.isdecimal() and number.isascii()
            if not is_digits or len(number) > 6:
                return None
            number = int(number)
        names[number] = name
    if sorted(names) != list(range(len(table))):
        return None
    return _checked(names[number] for number in range(len(table)))


def _checked(names: Iterable[Any]) -> tuple[str, ...] | None:
    """Return names if they are different short texts."""
    checked = tuple(names)
    for name in checked:
        if type(name) is not str or not name.strip() or len(name) > _LONGEST_NAME:
            return None
    return checked if len(set(checked)) == len(checked) else None
