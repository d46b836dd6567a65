"""Lengths of training with units, and the schedules of the learning rate."""

import itertools
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from reslearn.recipes.tables import Part

_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*(steps?|epochs?)")
_MAX_AMOUNT = 10**9  # exact as a float, and longer than any training


@dataclass(frozen=True)
class Length:
    """An amount of training, in steps or epochs.

    A step is one update on one full batch. A batch may contain images of two epochs, so an epoch of
    50,000 images at batch size 128 is 390.625 steps.
    """

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
    if not isinstance(value, str | Length):
        raise ValueError('a text with its unit is needed, as in "64000 steps" or "20 epochs"')
    return Length.parse(value) if isinstance(value, str) else value


def _check_positive(length: Length) -> Length:
    if length.amount == 0:
        raise ValueError("the length must be more than 0")
    return length


_LENGTH_SCHEMA = {"type": "string", "pattern": _PATTERN.pattern}
Moment = Annotated[
    Length, BeforeValidator(_read), PlainSerializer(str), WithJsonSchema(_LENGTH_SCHEMA)
]
"""A moment of a training, which may be its beginning."""
Duration = Annotated[Moment, AfterValidator(_check_positive)]
"""A length of training above zero."""


class _Schedule(Part):
    duration: Duration = Field(
        description='Length, as in "64000 steps" or "20 epochs". Paper: 64,000 steps.'
    )
    warm_up_lr: float | None = Field(
        None,
        gt=0,
        description="Learning rate of a warm-up. None: no warm-up. Paper (Sec. 4.2): 0.01 for 110 "
        "layers, until the training error is below 80 %.",
    )
    warm_up_error_pct: float = Field(
        80.0, gt=0, le=100, description="Training error in percent at which the warm-up ends."
    )
    warm_up_duration: Duration | None = Field(
        None,
        description="Length of the warm-up, whatever the error, as in re-implementations "
        '("400 steps", "1 epochs"). None: until warm_up_error_pct.',
    )

    ends: tuple[tuple[int, int], ...] = Field(
        (),
        description="Pairs [step, last step]. From `step` on, the rest of the schedule is "
        "compressed or stretched to end at `last step`. `--minutes` records these pairs. Set "
        "them only to repeat such a run.",
    )

    @field_validator("ends")
    @classmethod
    def _check_ends(cls, ends: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        if any(step < 0 or last_step <= step for step, last_step in ends):
            raise ValueError("each is [step, last step], and the last step is the later one")
        for (step, last_step), (next_step, _) in itertools.pairwise(ends):
            if not step < next_step < last_step:
                raise ValueError("each begins between the two steps of the one before it")
        return ends

    @model_validator(mode="after")
    def _check_warm_up(self) -> "_Schedule":
        if self.warm_up_duration is not None and self.warm_up_lr is None:
            raise ValueError("schedule.warm_up_duration has no effect without schedule.warm_up_lr")
        return self


class Constant(_Schedule):
    """The learning rate is the same in all steps."""

    kind: Literal["constant"]


class Stepwise(_Schedule):
    """The learning rate is multiplied by `factor` at each milestone."""

    kind: Literal["step"]
    milestones: tuple[Duration, ...] = Field(
        (Length(32000, "steps"), Length(48000, "steps")),
        validate_default=True,
        description="Moments at which the learning rate changes; each is later than the one "
        "before. Paper: 32,000 and 48,000 steps.",
    )
    factor: float = Field(0.1, gt=0, lt=1, description="Factor of the learning rate. Paper: 0.1.")

    @field_validator("milestones")
    @classmethod
    def _check_milestones(cls, milestones: tuple[Length, ...]) -> tuple[Length, ...]:
        # Steps and epochs can be compared only when the number of images is known (train/setup.py).
        for unit in ("steps", "epochs"):
            amounts = [milestone.amount for milestone in milestones if milestone.unit == unit]
            if any(later <= earlier for earlier, later in itertools.pairwise(amounts)):
                raise ValueError("each must be later than the one before it")
        return milestones


_RISE = "Fraction of the training during which the learning rate rises linearly from zero."


class Triangular(_Schedule):
    """The learning rate rises linearly, then falls linearly to `floor` times the peak."""

    kind: Literal["triangular"]
    rise: float = Field(0.2, ge=0, lt=1, description=_RISE)
    floor: float = Field(0.0, ge=0, le=1, description="Last learning rate over the highest.")


class Cosine(_Schedule):
    """The learning rate rises linearly, then falls to zero along half a cosine."""

    kind: Literal["cosine"]
    rise: float = Field(0.0, ge=0, lt=1, description=_RISE)


class Plateau(_Schedule):
    """The learning rate drops by `factor` when the validation error stops falling (Sec. 3.4).

    Paper: divided by 10 "when the error plateaus". The paper does not say when that is.
    """

    kind: Literal["plateau"]
    factor: float = Field(0.1, gt=0, lt=1, description="Factor of the learning rate. Paper: 0.1.")
    patience: int = Field(
        5, ge=1, description="Evaluations (evaluation.every) without improvement before a drop."
    )
    improvement_pct: float = Field(
        0.1,
        ge=0,
        le=100,
        description="Smallest fall of the validation error, in percent, that is an improvement.",
    )
    max_drops: int = Field(
        3,
        ge=1,
        description="Number of drops after which the learning rate stays, so that the rest of "
        "`duration` is not spent at a rate of almost zero.",
    )


Schedule = Annotated[
    Constant | Stepwise | Triangular | Cosine | Plateau, Field(discriminator="kind")
]
