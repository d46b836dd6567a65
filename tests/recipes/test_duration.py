"""Lengths with a unit: reading, writing, and the number of steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reslearn.recipes import Length

amounts = st.integers(0, 10**6)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("64000 steps", Length(64000, "steps")),
        ("1 step", Length(1, "steps")),
        ("20 epochs", Length(20, "epochs")),
        (" 0.5epoch ", Length(0.5, "epochs")),
        ("3.0 steps", Length(3, "steps")),
    ],
)
def test_a_length_is_read(text: str, length: Length) -> None:
    assert Length.parse(text) == length
    assert Length.parse(str(length)) == length


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20",
        "epochs",
        "20 minutes",
        "-1 epochs",
        "1e3 steps",
        "nan epochs",
        "0.5 steps",
        "2 epochs 3",
    ],
)
def test_an_invalid_length_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r'"64000 steps"'):
        Length.parse(text)


def test_the_lengths_of_the_paper() -> None:
    """64k steps of 128 images are 164 epochs of 50,000 (Sec. 4.2), and 182 of 45,000."""
    assert Length(64000, "steps").steps(num_images=50_000, batch_size=128) == 64_000
    assert Length(163.84, "epochs").steps(num_images=50_000, batch_size=128) == 64_000
    assert Length(1, "epochs").steps(num_images=50_000, batch_size=128) == 391


@given(
    amount=st.floats(0, 1000), num_images=st.integers(1, 10**6), batch_size=st.integers(1, 10**5)
)
def test_epochs_in_steps(amount: float, num_images: int, batch_size: int) -> None:
    steps = Length(amount, "epochs").steps(num_images=num_images, batch_size=batch_size)
    assert (
        abs(steps * batch_size - amount * num_images) <= batch_size
    )  # rounded to a step, and at least one
    assert (steps == 0) == (amount == 0)


@given(amounts, st.sampled_from(["steps", "epochs"]))
def test_a_length_survives_a_round_trip(amount: int, unit: str) -> None:
    assert Length.parse(str(Length(amount, unit))) == Length(amount, unit)
