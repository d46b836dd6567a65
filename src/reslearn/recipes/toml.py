"""TOML that users write: parsed with bounds, so that every later step can walk through it."""

import json
import tomllib
from typing import Any

MAX_DEPTH = 50
"""Tables and lists may lie this deep in each other. A recipe needs three levels."""


class TomlLimitError(ValueError):
    """TOML that is nested too deeply, or has a number that is too long."""


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a TOML document.

    Raises:
        tomllib.TOMLDecodeError: If it is no TOML.
        TomlLimitError: If it is beyond a limit.
    """
    too_deep = f"tables and lists are nested more than {MAX_DEPTH} deep"
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python reads at most 4,300 digits
        raise TomlLimitError("a number has too many digits") from None
    except RecursionError:
        raise TomlLimitError(too_deep) from None
    if is_too_deep(values):
        raise TomlLimitError(too_deep)
    return values


def is_too_deep(value: Any) -> bool:
    """Return whether dicts and lists are nested more than MAX_DEPTH deep."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        children: list[Any] = []
        for entry in level:
            if isinstance(entry, dict):
                children += entry.values()
            elif isinstance(entry, list):
                children += entry
        if not children:
            return False
        level = children
    return True


def quoted(text: str) -> str:
    """Write a text as in TOML, for overrides: a folder called 2015 is then not a number."""
    # TOML wants the escape of DEL, which JSON does not write, and refuses surrogate pairs.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f")
