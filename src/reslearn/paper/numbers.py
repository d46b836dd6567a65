"""The paper's own numbers as data (numbers.toml), in one place. Errors in per cent, multiply-adds in 10^9, parameters in 10^6."""

import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from reslearn.study import Spread


@functools.cache
def _all() -> dict[str, dict[str, Any]]:
    return tomllib.loads(
        (resources.files("reslearn.paper") / "numbers.toml").read_text(encoding="utf-8")
    )


def numbers(table: str) -> Mapping[str, float]:
    """One number a row, as in table6; of tables 3 and 4 the top-1 error. KeyError for a table without numbers."""
    return {
        name: float(value[0] if isinstance(value, list) else value)
        for name, value in _all()[table].items()
    }


def spreads(table: str) -> Mapping[str, Spread]:
    """Of the rows that are means of several runs: standard deviation and number."""
    return {
        name: Spread(float(deviation), int(count))
        for name, (deviation, count) in _all()[f"{table}_spread"].items()
    }


def top5(table: str) -> Mapping[str, float]:
    """The top-5 errors of tables 3 and 4."""
    return {
        name: float(value[1]) for name, value in _all()[table].items() if isinstance(value, list)
    }
