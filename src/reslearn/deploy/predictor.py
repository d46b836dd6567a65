"""`Predictor`: pictures to class probabilities, with the preprocessing of the training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from reslearn.data import DataError
from reslearn.data.files import map_in_order
from reslearn.data.pictures import Pixels
from reslearn.deploy.model_input import ModelInput, Picture
from reslearn.deploy.open_model import OpenedModel, open_model
from reslearn.deploy.sources import Source, UnreadableSource
from reslearn.interop.as_bundle import NO_OPTIONS, InputOptions

DEFAULT_BATCH_SIZE = 16
# Largest number of pixels of the whole pictures in a batch. Their float32 copies take 100 MB.
_MAX_BATCH_PIXELS = 2**23


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """The probabilities of one picture.

    Attributes:
        classes: Names of the classes.
        probabilities: One for each class, float32 [K].
    """

    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float32]

    @property
    def label(self) -> str:
        """The class with the greatest probability."""
        return self.classes[int(self.probabilities.argmax())]

    @property
    def probability(self) -> float:
        """The probability of the class `label`."""
        return float(self.probabilities.max())

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the `count` classes with the greatest probabilities, in this order."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[index], float(self.probabilities[index])) for index in order]


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureResult:
    """The prediction for one source, or why there is none.

    Attributes:
        name: Path or address of the picture.
        error: One line that names the picture; None if it was read.
        pixels: What the model takes of the picture, uint8 [H, W, C].
    """

    name: str
    prediction: Prediction | None = None
    error: str | None = None
    pixels: Pixels | None = None


class Predictor:
    """Predict the classes of pictures. Threads may share a predictor.

        predictor = Predictor("runs/photos")
        predictor(["cat.jpg"])[0].label

    Args:
        model: A run folder, a bundle, a file of `reslearn export`, a name such as
            "reslearn:resnet20", or weights of another project.
        options: Preprocessing and classes, for weights of other projects.
        device: Where PyTorch computes.
        threads: Threads of an exported file. None: all cores.
        batch_size: Pictures that are computed at once.

    Raises:
        RunError, BundleError, WeightsError: If the model cannot be used.
    """

    def __init__(
        self,
        model: Path | str | OpenedModel,
        options: InputOptions = NO_OPTIONS,
        *,
        device: str = "cpu",
        threads: int | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}: allowed are 1 and more")
        if not isinstance(model, OpenedModel):
            model = open_model(model, options, device=device, threads=threads)
        self.model = model
        self.classes = model.card.classes
        self.batch_size = batch_size
        self._input = ModelInput(model.card)

    def __call__(
        self, pictures: Picture | Sequence[Picture], *, white: float | None = None
    ) -> list[Prediction]:
        """Predict one or several pictures.

        Args:
            pictures: A path, the bytes of a file, a binary file, a Pillow image or an array
                [H, W, C] or [H, W]; a sequence of these; or an array [N, H, W, C].
            white: The value of white in arrays of floats: 1 or 255. Arrays of uint8 need none.

        Returns:
            One prediction for each picture, in order.

        Raises:
            DataError: If a picture cannot be read. The message names it.
        """
        items = _as_sequence(pictures)
        if len(items) == 1:  # threads would take longer to start than one picture takes
            return self.predict_pixels([self.pixels(items[0], white=white)])
        pixels = map_in_order(
            lambda item: self.pixels(item, white=white), items, num_ahead=self._num_ahead
        )
        predictions: list[Prediction] = []
        for chunk in _chunks(pixels, self.batch_size):
            predictions += self.predict_pixels(chunk)
        return predictions

    @property
    def _num_ahead(self) -> int:
        """Pictures that are decoded ahead. Whole pictures of a camera take 36 MB each."""
        return 2 if self.model.card.input_kind == "image" else 2 * self.batch_size

    @property
    def draft_px(self) -> int | None:
        """Twice this shorter side is enough of a large JPEG; see `data.pictures.open_picture`."""
        return self._input.draft_px

    def pixels(self, picture: Picture, *, white: float | None = None) -> Pixels:
        """Return what `predict_pixels` takes of one picture, uint8 [H, W, C].

        Raises:
            DataError: If the picture cannot be read.
        """
        return self._input.pixels(picture, white=white)

    def pixels_of(self, image: Image.Image) -> Pixels:
        """Return what `predict_pixels` takes of a picture that `open_picture` has decoded.

        Raises:
            DataError: If the model does not take such pictures.
        """
        return self._input.pixels_of(image)

    def predict_pixels(self, pixels: Sequence[Pixels]) -> list[Prediction]:
        """Compute the predictions of pictures that `pixels` prepared, in as few batches as it can.

        Only pictures of equal size share a batch. Crops always have equal sizes.
        """
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, array in enumerate(pixels):
            by_shape.setdefault(array.shape, []).append(index)
        rows: dict[int, npt.NDArray[np.float32]] = {}
        for (height, width, *_), indices in by_shape.items():
            size = max(1, _MAX_BATCH_PIXELS // (height * width))
            for start in range(0, len(indices), size):
                part = indices[start : start + size]
                batch = self._input.batch([pixels[index] for index in part])
                rows.update(zip(part, self.model.engine(batch), strict=True))
        return [
            Prediction(classes=self.classes, probabilities=rows[index])
            for index in range(len(pixels))
        ]

    def stream(self, sources: Iterable[Source]) -> Iterator[PictureResult]:
        """Yield one result for each source, in order. An unreadable picture stops nothing.

        Pictures are decoded ahead in threads, and memory is bounded.
        """
        decoded = map_in_order(self._decode, sources, num_ahead=self._num_ahead)
        for chunk in _chunks(decoded, self.batch_size):
            readable = [result.pixels for result in chunk if result.pixels is not None]
            predictions = iter(self.predict_pixels(readable))
            for result in chunk:
                is_readable = result.pixels is not None
                yield replace(result, prediction=next(predictions)) if is_readable else result

    def _decode(self, source: Source) -> PictureResult:
        if isinstance(source, UnreadableSource):
            return PictureResult(name=source.name, error=source.message)
        try:
            return PictureResult(name=source.name, pixels=self.pixels(source.content()))
        except DataError as error:
            return PictureResult(name=source.name, error=str(error))


def _as_sequence(pictures: Picture | Sequence[Picture]) -> Sequence[Picture]:
    """Return the pictures one by one. An array with four dimensions holds several."""
    if isinstance(pictures, np.ndarray | torch.Tensor):
        return list(pictures) if pictures.ndim == 4 else [pictures]
    if isinstance(pictures, Sequence) and not isinstance(pictures, str | bytes | bytearray):
        return pictures
    return [pictures]


Item = TypeVar("Item", Pixels, PictureResult)


def _chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield up to `size` items at a time, fewer if they are whole pictures with many pixels."""
    chunk: list[Item] = []
    num_pixels = 0
    for item in items:
        chunk.append(item)
        pixels = item.pixels if isinstance(item, PictureResult) else item
        if pixels is not None:
            num_pixels += pixels.shape[0] * pixels.shape[1]
        if len(chunk) == size or num_pixels >= _MAX_BATCH_PIXELS:
            yield chunk
            chunk, num_pixels = [], 0
    if chunk:
        yield chunk
