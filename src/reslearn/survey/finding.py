"""One finding about a folder of images, and the words of its sentences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
_MAX_NAMES = 5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One observation.

    Attributes:
        name: Identifies the rule, for scripts.
        count: Number of images, files or classes concerned.
        text: What was found, one sentence without its period.
        action: What to do about it, one sentence without its period.
        examples: The first images concerned, by row. Copies are in one tuple.
    """

    severity: Severity
    name: str
    count: int
    text: str
    action: str
    examples: tuple[tuple[int, ...], ...] = ()

    @property
    def line(self) -> str:
        return f"{self.text}. {self.action}."


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 image", "2,000 images"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def listed(names: Iterable[str], number: int = _MAX_NAMES) -> str:
    """Return the first names, and how many more there are."""
    ordered = list(names)
    text = ", ".join(ordered[:number])
    return f"{text} and {len(ordered) - number:,} more" if len(ordered) > number else text


def copies_of(exact: int, near: int) -> str:
    """Return which copies images have: "an exact copy", or "a copy (1 exact, 2 near)"."""
    if exact and near:
        return f"a copy ({exact:,} exact, {near:,} near)"
    return "an exact copy" if exact else "a near copy"


def has(count: int) -> str:
    """Return the verb that follows a number of things."""
    return "has" if count == 1 else "have"


def them(count: int) -> str:
    """Return the pronoun of a number of things."""
    return "it" if count == 1 else "them"


def singles(rows: Iterable[int]) -> tuple[tuple[int, ...], ...]:
    """Return rows as examples of one image each."""
    return tuple((row,) for row in rows)


def share(part: int, total: int) -> str:
    """Return a share in per cent with as many digits as it needs."""
    percent = 100 * part / max(total, 1)
    return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.2g} %"
