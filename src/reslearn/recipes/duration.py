"""Lengths of training with their unit: `64000 steps` or `20 epochs`, never a bare number.

A step is one update of the weights on one full batch. An epoch is one pass over the training
images. A batch may contain images of two epochs, so an epoch of 50,000 images at batch size 128 is
390.625 steps.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*(steps?|epochs?)")
_MAX_AMOUNT = 10**9  # exact as a float, and longer than any training


@dataclass(frozen=True)
class Length:
    """An amount of training, in steps or epochs."""

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> "Length":
        """Return the length that "64000 steps", "20 epochs", "0.5 epochs" or "0 steps" stands for.

        Raises:
            ValueError: If `text` is anything else.
        """
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise ValueError('a number with its unit is needed, as in "64000 steps" or "20 epochs"')
        length = cls(float(match[1]), match[2].rstrip("s") + "s")
        if length.amount > _MAX_AMOUNT:
            raise ValueError(f"at most {_MAX_AMOUNT:,} are allowed")
        if length.unit == "steps" and length.amount != int(length.amount):
            raise ValueError(
                'whole steps are needed, as in "64000 steps"; epochs may be fractions, as in '
                '"0.5 epochs"'
            )
        return length

    def steps(self, *, num_images: int, batch_size: int) -> int:
        """Return the number of steps, rounded to the nearest; at least 1 unless the amount is 0."""
        if self.unit == "steps":
            return int(self.amount)
        return max(1 if self.amount else 0, round(self.amount * num_images / batch_size))

    def __str__(self) -> str:
        amount = int(self.amount) if self.amount == int(self.amount) else self.amount
        return f"{amount} {self.unit}"


def _read(value: Any) -> Length:
    if isinstance(value, Length):
        return value
    if isinstance(value, str):
        return Length.parse(value)
    raise ValueError('a text with its unit is needed, as in "64000 steps" or "20 epochs"')


def _check_positive(length: Length) -> Length:
    if length.amount == 0:
        raise ValueError("the length must be more than 0")
    return length


Moment = Annotated[
    Length,
    BeforeValidator(_read),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _PATTERN.pattern}),
]
"""A moment of a training, which may be its beginning."""
Duration = Annotated[Moment, AfterValidator(_check_positive)]
"""A length of training above zero."""
