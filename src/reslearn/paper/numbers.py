"""The paper's numbers: errors in percent, multiply-adds in 10^9, parameters in 10^6."""

import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from reslearn.study import Spread


def numbers(table: str) -> Mapping[str, float]:
    """Return one number per row of a table: the top-1 error where a row has two numbers.

    Raises:
        KeyError: For a table without numbers.
    """
    return {
        name: float(value[0] if isinstance(value, list) else value)
        for name, value in _tables()[table].items()
    }


def top5(table: str) -> Mapping[str, float]:
    """Return the top-5 errors of the rows that have them (Tables 3 and 4)."""
    return {
        name: float(value[1]) for name, value in _tables()[table].items() if isinstance(value, list)
    }


def spreads(table: str) -> Mapping[str, Spread]:
    """Return the spread of the rows that are means of several runs."""
    return {
        name: Spread(float(deviation), int(count))
        for name, (deviation, count) in _tables()[f"{table}_spread"].items()
    }


@functools.cache
def _tables() -> dict[str, dict[str, Any]]:
    file = resources.files("reslearn.paper") / "numbers.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))
