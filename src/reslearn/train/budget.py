"""Choose network, size of the images, epochs and learning rate for a number of minutes.

The rule is a pure function: from counts of images, measured seconds and available weights to a
`Choice`.

The rule takes the largest network that sees every photo often enough in the time: 30 times from
new weights, and 16 times from weights of other photos. With fewer epochs, a smaller network that
has time to converge is better than a larger one. A network also needs a number of updates, so at
least 12,000 images pass through it, however few photos there are. Two million images are always
enough.

Below 50,000 photos, networks without weights are left out if another one has some: weights of
50,000 other images took the error on 3,000 photos from 31 to 18 % (LOG.md).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network and the side of its images. All have shortcut option B, so all can be exported."""

    model: str
    size_px: int


# From the cheapest to the most expensive; each costs 2 to 4 times the one before.
LADDER = (
    Candidate(model="resnet20", size_px=32),
    Candidate(model="resnet18", size_px=64),
    Candidate(model="resnet18", size_px=96),
    Candidate(model="resnet18", size_px=128),
    Candidate(model="resnet34", size_px=160),
    Candidate(model="resnet50", size_px=224),
)
# With weights that come with the package, the small network is worth larger images.
ENLARGED = Candidate(model="resnet20", size_px=64)
_WANTED_EPOCHS = 30
_WANTED_EPOCHS_FROM_WEIGHTS = 16
_WANTED_IMAGES = (12_000, 2_000_000)
FEW_PHOTOS = 50_000
"""Below this number, networks with weights are preferred."""
_MAX_EPOCHS = 200
"""Time for more epochs goes to a larger network, or is not used."""
_MAX_EPOCHS_FROM_WEIGHTS = 40
_STARTING_SECONDS = 4.0
"""Time for which Python and torch run before and after the clock."""
_MARGIN = 0.03
"""Reserve, as part of the whole time. `TimeLimit` handles a machine that becomes slower."""
_EVALUATION_SHARE = 0.05
"""Part of the training time that validations may take."""
_EVALUATION_PER_STEP = 0.35
"""Time to evaluate an image, relative to training on it: a third of the products, and reading."""
_MAX_TRAIN_IMAGES_EVALUATED = 1_000
_MIN_TRAINING_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Photos:
    """Counts of a folder, and the seconds to read one of its pictures."""

    num_classes: int
    num_train: int
    num_validation: int
    num_test: int
    read_seconds: float

    @property
    def num_all(self) -> int:
        return self.num_train + self.num_validation + self.num_test


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The training that a budget allows.

    Attributes:
        epochs: Length of the training.
        evaluate_every_epochs: Epochs between two validations.
        is_enough: Whether every photo is seen as often as a good training needs.
        load_seconds, train_seconds, close_seconds: The estimated parts of the time.
    """

    candidate: Candidate
    weights: str | None
    epochs: float
    batch_size: int
    lr: float
    ema: float
    evaluate_every_epochs: int
    train_images_evaluated: int
    is_enough: bool
    images_per_second: float
    load_seconds: float
    train_seconds: float
    close_seconds: float


class TooShortError(ValueError):
    """The minutes do not even allow to load and evaluate the photos."""


def choose(
    photos: Photos,
    seconds_per_image: Mapping[Candidate, float],
    weights: Mapping[str, str],
    *,
    seconds: float,
    used_seconds: float = 0.0,
    on_gpu: bool = False,
) -> Choice:
    """Choose by the rule of this module.

    Args:
        photos: Counts of the photos, and the time to read one.
        seconds_per_image: Measured time of one image in a training step, by candidate, from the
            cheapest to the most expensive.
        weights: Sources of weights by the name of the network.
        seconds: Time left for loading, training and evaluation.
        used_seconds: Time of the command so far, for the message of an error.
        on_gpu: Whether to use the larger batches of a GPU.

    Raises:
        TooShortError: If no time is left for training. The message has the minutes needed.
    """
    affordable: Choice | None = None
    is_few = photos.num_train < FEW_PHOTOS
    with_weights = [key for key in seconds_per_image if is_few and key.model in weights]
    for candidate in with_weights or seconds_per_image:
        image_seconds = seconds_per_image[candidate]
        parts = _parts(photos, image_seconds, seconds, _closing_images(photos))
        if affordable is None:
            _check_time(photos, parts, seconds, used_seconds)
        num_images = int(parts.train_seconds / parts.seconds_per_image)
        source = weights.get(candidate.model)
        is_enough = num_images >= wanted_images(photos.num_train, from_weights=source is not None)
        if affordable is None or is_enough:
            affordable = _choice(photos, candidate, source, parts, num_images, is_enough, on_gpu)
    assert affordable is not None, "there is no candidate"
    return affordable


def wanted_images(num_train: int, *, from_weights: bool) -> int:
    """Return how many images a network should see, each counted once per epoch."""
    epochs = _WANTED_EPOCHS_FROM_WEIGHTS if from_weights else _WANTED_EPOCHS
    minimum, maximum = _WANTED_IMAGES
    return min(max(epochs * num_train, minimum), maximum)


def _check_time(photos: Photos, parts: "_Parts", seconds: float, used_seconds: float) -> None:
    if parts.train_seconds >= _MIN_TRAINING_SHARE * seconds:
        return
    needed = used_seconds + (parts.load_seconds + parts.close_seconds) / (
        1 - _MARGIN - _MIN_TRAINING_SHARE
    )
    raise TooShortError(
        f"{max(0.0, seconds):.0f} s are left after a look at photos and machine, too short to "
        f"load, train and evaluate {photos.num_all:,} photos: set --minutes "
        f"{math.ceil(10 * needed / 60 + 1) / 10:g} or more"
    )


@dataclass(frozen=True, kw_only=True)
class _Parts:
    seconds_per_image: float
    evaluate_every_epochs: int
    load_seconds: float
    train_seconds: float
    close_seconds: float


def affordable_epochs(
    photos: Photos,
    seconds_per_image: float,
    *,
    seconds: float,
    closing_images: int,
    used_seconds: float = 0.0,
) -> float:
    """Return the epochs of a given recipe that fit into the seconds.

    Args:
        closing_images: Images that the recipe evaluates after the last step.
        used_seconds: Time of the command so far, for the message of an error.

    Raises:
        TooShortError: If no time is left for training.
    """
    parts = _parts(photos, seconds_per_image, seconds, closing_images)
    _check_time(photos, parts, seconds, used_seconds)
    return parts.train_seconds / parts.seconds_per_image / photos.num_train


def _closing_images(photos: Photos) -> int:
    # The validation images are read twice: once more to fit the temperature.
    evaluated = min(photos.num_train, _MAX_TRAIN_IMAGES_EVALUATED)
    return evaluated + 2 * photos.num_validation + photos.num_test


def _parts(photos: Photos, seconds_per_image: float, seconds: float, closing_images: int) -> _Parts:
    """Divide the time into loading, training and the evaluations at the end."""
    evaluation = _EVALUATION_PER_STEP * seconds_per_image
    load_seconds = photos.num_all * photos.read_seconds
    close_seconds = closing_images * evaluation + _STARTING_SECONDS
    per_epoch = photos.num_validation * evaluation
    epoch_seconds = photos.num_train * seconds_per_image
    every = max(1, round(per_epoch / (_EVALUATION_SHARE * epoch_seconds)))
    return _Parts(
        seconds_per_image=seconds_per_image + per_epoch / every / photos.num_train,
        evaluate_every_epochs=every,
        load_seconds=load_seconds,
        train_seconds=(1 - _MARGIN) * seconds - load_seconds - close_seconds,
        close_seconds=close_seconds,
    )


def _choice(
    photos: Photos,
    candidate: Candidate,
    source: str | None,
    parts: _Parts,
    num_images: int,
    is_enough: bool,
    on_gpu: bool,
) -> Choice:
    limit = _MAX_EPOCHS if source is None else _MAX_EPOCHS_FROM_WEIGHTS
    num_images = min(num_images, max(limit * photos.num_train, 4 * _WANTED_IMAGES[0]))
    batch_size = batch_size_for(photos.num_train, num_images, on_gpu=on_gpu)
    num_steps = max(1, num_images // batch_size)
    return Choice(
        candidate=candidate,
        weights=source,
        epochs=max(0.1, int(10 * num_images / photos.num_train) / 10),
        batch_size=batch_size,
        lr=learning_rate_for(batch_size, from_weights=source is not None),
        ema=round(min(0.999, max(0.9, 1 - 50 / num_steps)), 4),
        evaluate_every_epochs=parts.evaluate_every_epochs,
        train_images_evaluated=_MAX_TRAIN_IMAGES_EVALUATED,
        is_enough=is_enough,
        images_per_second=1 / parts.seconds_per_image,
        load_seconds=parts.load_seconds,
        train_seconds=num_images * parts.seconds_per_image,
        close_seconds=parts.close_seconds,
    )


def batch_size_for(num_train: int, num_images: int, *, on_gpu: bool) -> int:
    """Return the batch size: small enough for a thousand updates, large enough for the hardware."""
    sizes: Sequence[int] = (256, 128, 64, 32) if on_gpu else (64, 32)
    for size in sizes:
        if num_images >= 1_000 * size and num_train >= 10 * size:
            return size
    return 32 if num_train >= 160 else 16


def learning_rate_for(batch_size: int, *, from_weights: bool) -> float:
    """Return the peak learning rate, in proportion to the batch (Goyal et al. 2017).

    Weights of other images are kept only by a low rate: 0.1 destroys them (LOG.md).
    """
    return (0.01 if from_weights else 0.05) * batch_size / 64
