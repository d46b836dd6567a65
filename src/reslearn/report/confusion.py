"""A confusion matrix as a table: labels in rows, predictions in columns, shades for the shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MAX_CLASSES = 25
"""A table of more classes is neither readable nor small; list its greatest cells instead."""
_MAX_NAME_CHARACTERS = 22


@dataclass(frozen=True, slots=True)
class Confusion:
    """Number of images by label and prediction.

    Args:
        caption: Text above the table.
        classes: Names of the classes.
        counts: One row of counts for each label.

    Raises:
        ValueError: If there are more than 25 classes, or not one count for each pair of classes.
    """

    caption: str
    classes: Sequence[str]
    counts: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        num_classes = len(self.classes)
        if num_classes > MAX_CLASSES:
            raise ValueError(f"{num_classes} classes: a page shows at most {MAX_CLASSES}")
        if [len(row) for row in self.counts] != [num_classes] * num_classes:
            raise ValueError(f"the matrix needs {num_classes} rows of {num_classes} counts")


def confusion_entry(confusion: Confusion) -> dict[str, Any]:
    """Return the values that the template prints. A shade is the share of the row, in percent."""
    rows = []
    for label, counts in enumerate(confusion.counts):
        total = max(1, sum(counts))
        cells = []
        for prediction, count in enumerate(counts):
            shade = round(75 * count / total)
            # A single mistake in a large class must not look like none.
            shade = max(shade, 8) if count else 0
            cells.append({"count": count, "shade": shade, "right": prediction == label})
        rows.append({"name": shortened(confusion.classes[label]), "cells": cells})
    names = [shortened(name) for name in confusion.classes]
    return {"kind": "confusion", "caption": confusion.caption, "names": names, "rows": rows}


def shortened(name: str, max_characters: int = _MAX_NAME_CHARACTERS) -> str:
    """Return a name with an ellipsis in place of what is too long."""
    return name if len(name) <= max_characters else f"{name[: max_characters - 1]}…"
