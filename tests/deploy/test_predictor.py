"""`Predictor`: the answers of `evaluate`, for every kind of input, batched and from threads."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslearn import data
from reslearn.data import DataError
from reslearn.deploy import Predictor
from reslearn.deploy.sources import expand
from reslearn.interop import BundleError, WeightsError, read_bundle

MakeBundle = Callable[..., Path]


def all_pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.*") if path.is_file())


def probabilities(predictor: Predictor, picture: object, **options: float) -> np.ndarray:
    (prediction,) = predictor(picture, **options)  # type: ignore[arg-type]
    return prediction.probabilities


def test_probabilities_are_those_of_evaluation(bundle: Path, pictures: Path) -> None:
    """The same preprocessing and network as in an evaluation, and the temperature of the bundle."""
    files = data.load(pictures, size_px=24, stream=True).test
    opened = read_bundle(bundle)
    batches = data.eval_batches(files, opened.preprocess, batch_size=32)
    with torch.inference_mode():
        logits = torch.cat([opened.network(x) for x, _ in batches])
    expected = (logits / 1.5).softmax(1).numpy()
    assert isinstance(files, data.Files)
    paths = [files.path(index) for index in range(len(files))]
    predictions = Predictor(bundle)(paths)
    actual = np.stack([prediction.probabilities for prediction in predictions])
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert np.ptp(expected[:, 0]) > 0.05, "the network tells these pictures apart"
    for prediction, row in zip(predictions, expected, strict=True):
        order = [prediction.classes[index] for index in np.argsort(-row)]
        assert [label for label, _ in prediction.top(3)] == order
        assert prediction.label == order[0]
        assert prediction.probability == pytest.approx(row.max())


def test_every_kind_of_input_gives_the_same_answer(bundle: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 33, 3), dtype=np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    predictor = Predictor(bundle)
    expected = probabilities(predictor, path)
    for picture in (
        str(path),
        path.read_bytes(),
        bytearray(path.read_bytes()),
        io.BytesIO(path.read_bytes()),
        Image.open(path),
        pixels,
        torch.from_numpy(pixels),
    ):
        np.testing.assert_allclose(probabilities(predictor, picture), expected, atol=1e-6)
    as_fractions = pixels.astype(np.float32) / 255
    for array, white in ((as_fractions, 1), (pixels.astype(np.float64), 255)):
        np.testing.assert_allclose(
            probabilities(predictor, array, white=white), expected, atol=1e-6
        )
    both = np.stack([pixels, pixels[::-1]])
    assert len(predictor(both)) == 2 == len(predictor([path, pixels]))


def test_what_is_no_picture_is_named(bundle: Path) -> None:
    predictor = Predictor(bundle)
    for picture, message in (
        (None, "a picture of the type NoneType: allowed are a path, the bytes"),
        (iter([]), "list_iterator"),
        ("https://example.org/cat.jpg", "is an address: download it"),
    ):
        with pytest.raises(DataError, match=message):
            predictor(picture)  # type: ignore[arg-type]


def test_the_range_of_an_array_is_never_guessed(bundle: Path) -> None:
    predictor = Predictor(bundle)
    gray = np.full((30, 30, 3), 0.5, np.float32)
    for array, white, message in (
        (gray, None, "pass white=1 for values from 0 to 1, or white=255"),
        (gray, 2, "pass white=1"),
        (gray * 3, 1, "values from 1.5 to 1.5: with white=1 they must lie between 0 and 1"),
        (-gray, 1, "from -0.5 to -0.5"),
        (gray * np.nan, 1, "from nan to nan"),
        (gray.astype(np.uint8), 1, "white is 255 in an array of uint8"),
        (gray.astype(np.int64), None, "an array of int64: allowed are uint8 and floats"),
        (gray.astype(np.uint16), None, "an array of uint16"),
        (gray.transpose(2, 0, 1), 1, r"shape \(3, 30, 30\): allowed are \[height, width, 3\]"),
        (np.zeros((0, 5, 3), np.uint8), None, "has no pixels"),
    ):
        with pytest.raises(DataError, match=message):
            predictor(array, white=white)


def test_a_gray_network_takes_colored_pictures(make_bundle: MakeBundle, tmp_path: Path) -> None:
    predictor = Predictor(make_bundle(in_channels=1))
    pixels = np.random.default_rng(1).integers(0, 256, (40, 33), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "gray.png")
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "color.png")
    expected = probabilities(predictor, tmp_path / "gray.png")
    np.testing.assert_array_equal(probabilities(predictor, tmp_path / "color.png"), expected)
    np.testing.assert_array_equal(probabilities(predictor, pixels[:, :, None]), expected)


def test_pictures_of_pillow_are_turned_upright_and_put_on_white(bundle: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (40, 33, 4), dtype=np.uint8)
    transparent = Image.fromarray(pixels)
    turned = Image.fromarray(pixels[:, :, :3])
    turned.getexif()[0x0112] = 6  # rotate by 90 degrees
    predictor = Predictor(bundle)
    for image in (transparent, turned):
        file = io.BytesIO()
        image.save(file, "PNG", exif=image.getexif())
        expected = probabilities(predictor, file.getvalue())
        np.testing.assert_array_equal(probabilities(predictor, image), expected)


def test_threads_and_batches_do_not_change_answers(bundle: Path, pictures: Path) -> None:
    paths = all_pictures(pictures)
    expected = [row.probabilities for row in Predictor(bundle, batch_size=64)(paths)]
    predictor = Predictor(bundle, batch_size=3)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda path: probabilities(predictor, path), paths * 3))
    np.testing.assert_allclose(np.stack(answers), np.stack(expected * 3), atol=1e-5)
    np.testing.assert_allclose(
        np.stack([row.probabilities for row in predictor(paths)]), np.stack(expected), atol=1e-5
    )


def test_a_stream_goes_on_after_an_unreadable_picture(bundle: Path, pictures: Path) -> None:
    path = all_pictures(pictures)[0]
    names = [str(path), "missing.jpg", str(Path(__file__)), str(path), "ftp://host/a.png"]
    results = list(Predictor(bundle, batch_size=2).stream(expand(names)))
    assert [result.name for result in results] == names
    assert [result.error is None for result in results] == [True, False, False, True, False]
    for result in results:
        assert (result.prediction is None) == (result.error is not None)
        assert result.error is None or result.error.startswith(f"{result.name} cannot be read (")


def test_models_that_cannot_be_used_are_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    damaged = tmp_path / "model.safetensors"
    damaged.write_bytes(bundle.read_bytes()[:-1] + b"\x00")
    for source, error, message in (
        (tmp_path / "nothing", WeightsError, "there is no such run folder or file"),
        (tmp_path / "empty", WeightsError, "is a folder, not a weight file"),
        (damaged, (BundleError, WeightsError), "damaged"),
    ):
        with pytest.raises(error, match=message):
            Predictor(source)
    with pytest.raises(ValueError, match="batch_size = 0"):
        Predictor(bundle, batch_size=0)
