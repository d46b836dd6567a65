"""The rule that chooses network, size and epochs for a number of minutes."""

from collections.abc import Mapping
from typing import Any

import pytest

from reslearn.train.budget import (
    ENLARGED,
    FEW_PHOTOS,
    LADDER,
    Candidate,
    Choice,
    Photos,
    TooShortError,
    affordable_epochs,
    batch_size_for,
    choose,
    learning_rate_for,
    wanted_images,
)

# Seconds per image of two idle cores, AVX-512 without bf16, in float32.
TWO_CORES = dict(zip(LADDER, (0.003, 0.0105, 0.0236, 0.042, 0.13, 0.27), strict=True))
TWO_CORES_SHIPPED = {LADDER[0]: 0.003, ENLARGED: 0.0105, **TWO_CORES}
GPU = dict(zip(LADDER, (1e-4, 2e-4, 3e-4, 4e-4, 6e-4, 8e-4), strict=True))
IMAGENET = {name: f"torchvision:{name}" for name in ("resnet18", "resnet34", "resnet50")}
SHIPPED = {"resnet20": "reslearn:resnet20"}


def photos(**values: Any) -> Photos:
    counts = {"num_classes": 10, "num_train": 3068, "num_validation": 341, "num_test": 372}
    return Photos(**{**counts, "read_seconds": 0.001, **values})


def chosen(
    minutes: float,
    speeds: Mapping[Candidate, float] = TWO_CORES,
    weights: Mapping[str, str] | None = None,
    **values: Any,
) -> Choice:
    return choose(photos(**values), speeds, weights or {}, seconds=60 * minutes)


@pytest.mark.parametrize(
    ("minutes", "model", "size_px", "is_enough"),
    [
        (3, "resnet20", 32, False),
        (10, "resnet20", 32, True),
        (30, "resnet18", 64, True),
        (60, "resnet18", 96, True),
        (24 * 60, "resnet50", 224, True),
    ],
)
def test_more_minutes_allow_larger_networks(
    minutes: float, model: str, size_px: int, is_enough: bool
) -> None:
    choice = chosen(minutes)
    assert choice.candidate == Candidate(model=model, size_px=size_px)
    assert choice.is_enough is is_enough


def test_all_parts_fit_into_the_time() -> None:
    for minutes in (2, 3, 10, 30, 240):
        choice = chosen(minutes)
        parts = choice.load_seconds + choice.train_seconds + choice.close_seconds
        assert parts <= 60 * minutes
        if not choice.is_enough or choice.epochs < 200:
            assert parts >= 0.9 * 60 * minutes, "time is left"


def test_imagenet_weights_allow_a_larger_network_for_fewer_epochs() -> None:
    new, given = chosen(30), chosen(30, weights=IMAGENET)
    assert given.candidate.size_px > new.candidate.size_px
    assert 16 <= given.epochs < new.epochs
    assert given.weights == "torchvision:resnet18"
    assert given.lr < new.lr


@pytest.mark.parametrize(("minutes", "size_px"), [(3, 32), (8, 32), (30, 64), (600, 64)])
def test_few_photos_start_from_shipped_weights(minutes: float, size_px: int) -> None:
    choice = chosen(minutes, TWO_CORES_SHIPPED, SHIPPED)
    assert choice.weights == "reslearn:resnet20"
    assert choice.candidate == Candidate(model="resnet20", size_px=size_px)


def test_many_photos_need_no_weights() -> None:
    """Weights are preferred below 50,000 photos."""
    for num_train, model in ((FEW_PHOTOS - 1, "resnet20"), (FEW_PHOTOS, "resnet18")):
        choice = chosen(24 * 60, TWO_CORES_SHIPPED, SHIPPED, num_train=num_train)
        assert choice.candidate.model == model
    assert FEW_PHOTOS == 50_000


def test_wanted_images_at_the_margins() -> None:
    assert wanted_images(399, from_weights=False) == 12_000
    assert wanted_images(401, from_weights=False) == 12_030
    assert wanted_images(749, from_weights=True) == 12_000
    assert wanted_images(751, from_weights=True) == 12_016
    assert wanted_images(10_000_000, from_weights=False) == 2_000_000


def test_few_photos_are_not_trained_for_ever() -> None:
    choice = chosen(600, num_train=100, num_validation=10, num_test=20)
    assert choice.epochs == 480  # 48,000 images: more updates do not help 100 photos
    assert (choice.batch_size, choice.train_seconds < 4 * 3600) == (16, True)


def test_a_million_photos_are_seen_less_than_once_by_a_slow_machine() -> None:
    choice = chosen(30, num_train=1_000_000, read_seconds=0, num_validation=2000, num_test=2000)
    assert 0.1 < choice.epochs < 1
    assert choice.candidate == LADDER[0]
    assert chosen(60, GPU, num_train=100_000, num_validation=2000).candidate.model == "resnet50"


def test_a_time_that_is_too_short_says_what_is_needed() -> None:
    with pytest.raises(TooShortError, match=r"set --minutes [\d.]+ or more") as error:
        chosen(0.2)
    needed = float(str(error.value).split("--minutes ")[1].split()[0])
    assert 0.2 < needed < 1
    assert chosen(needed).epochs > 0
    with pytest.raises(TooShortError, match=r"set --minutes 3\.\d or more"):
        choose(photos(), TWO_CORES, {}, seconds=0, used_seconds=180)
    with pytest.raises(TooShortError, match=r"^0 s are left"):
        chosen(-0.2)


def test_validations_take_a_small_part_of_the_training() -> None:
    assert chosen(30).evaluate_every_epochs == 1
    assert chosen(30, num_train=400, num_validation=341).evaluate_every_epochs == 6


def test_batches_and_rates() -> None:
    assert batch_size_for(3068, 63_999, on_gpu=False) == 32
    assert batch_size_for(3068, 64_000, on_gpu=False) == 64
    assert batch_size_for(3068, 10**6, on_gpu=True) == 256
    assert batch_size_for(159, 10**6, on_gpu=False) == 16
    assert learning_rate_for(64, from_weights=False) == 0.05
    assert learning_rate_for(128, from_weights=True) == 0.02


def test_epochs_of_a_given_recipe() -> None:
    epochs = affordable_epochs(photos(), 0.01, seconds=600, closing_images=0)
    assert epochs == pytest.approx(600 / (0.01 * 3068), rel=0.1)
