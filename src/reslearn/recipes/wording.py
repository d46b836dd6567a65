"""What pydantic finds wrong, in the words of a reader of TOML or JSON rather than of a programmer."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_NEEDED = {
    "bool_type": "true or false is needed",
    "float_type": "a number is needed",
    "int_type": "a whole number is needed",
    "int_from_float": "a whole number is needed",
    "dict_type": "a table of keys is needed",
    "model_type": "a table of keys is needed",
    "model_attributes_type": "a table of keys is needed",
    "string_type": "a text is needed",
    "string_too_short": "a text is needed",
    "tuple_type": "a list is needed",
    "list_type": "a list is needed",
    "too_short": "at least one is needed",
}


def needed(problem: "ErrorDetails") -> str:
    """What would have been right, for one problem that pydantic tells."""
    return _NEEDED.get(problem["type"]) or problem["msg"][0].lower() + problem["msg"][1:]


def show(value: Any) -> str:
    """A value as JSON writes it, in at most a line."""
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


_LONGEST = 200
