"""Exported files: their answers, what they say about themselves, and the gate before they exist."""

import io
import json
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reslearn.deploy import PixelsToProbabilities, Predictor, export, form_speed
from reslearn.deploy.engines import is_exported, open_exported
from reslearn.deploy.export import export_forms
from reslearn.deploy.forms import ExportForm
from reslearn.deploy.model_input import ModelInput
from reslearn.deploy.open_model import card_of_bundle, open_bundle, open_model
from reslearn.deploy.parity_images import ParityImages, load_parity_images
from reslearn.interop import WeightsError, read_checkpoint

CLASSES = ("blue", "green", "red")


def paths_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.*") if path.is_file())


def answers(predictor: Predictor, pictures: Any) -> np.ndarray:
    return np.stack([prediction.probabilities for prediction in predictor(pictures)])


def test_all_forms_agree_and_are_written(exported: Any) -> None:
    report = exported.report
    assert report.is_written
    assert [row.form for row in report.rows] == ["torch", *(form.value for form in ExportForm)]
    for row in report.rows[1:]:
        assert row.problems == ()
        assert row.path == exported.paths[ExportForm(row.form)]
        assert row.path.is_file() and row.num_bytes >= row.path.stat().st_size
        assert row.file.num_images == row.served.num_images == 15
        assert row.speed.latency_ms > 0 and row.speed.images_per_s > 0
        if row.form != "int8":
            assert row.served.largest_difference < 0.01
    sizes = {row.form: row.num_bytes for row in report.rows}
    assert sizes["int8"] < sizes["onnx"]
    assert report.images.startswith("15 validation images of ")
    assert report.full_decoding.num_images == 15


@pytest.mark.parametrize("form", ExportForm)
def test_a_file_predicts_as_the_bundle(
    form: ExportForm, exported: Any, bundle: Path, pictures: Path
) -> None:
    paths = paths_of(pictures)
    expected = answers(Predictor(bundle), paths)
    predictor = Predictor(exported.paths[form], threads=1)
    actual = answers(predictor, paths)
    tolerance = 0.4 if form is ExportForm.INT8 else 0.01
    np.testing.assert_allclose(actual, expected, atol=tolerance)
    assert np.abs(actual - expected).max() > 0, "it is another computation"
    with ThreadPoolExecutor(4) as pool:
        concurrent = list(pool.map(lambda path: answers(predictor, path)[0], paths))
    np.testing.assert_allclose(np.stack(concurrent), actual, atol=1e-5)


@pytest.mark.parametrize("form", ExportForm)
def test_a_file_says_what_it_is(form: ExportForm, exported: Any, bundle: Path) -> None:
    card, engine = open_exported(exported.paths[form])
    preprocess = open_bundle(bundle).preprocess
    assert (card.name, card.classes, card.license) == ("resnet8", CLASSES, "CC-BY-4.0")
    assert (card.recipe_hash, card.temperature) == ("0123456789ab", 1.5)
    assert (card.input_kind, card.preprocess) == ("image", preprocess)
    assert card.precision == ("int8" if form is ExportForm.INT8 else "float32")
    content = exported.paths[form].read_bytes()
    for text in (b"/reslearn/models", b"site-packages", b".py"):
        assert text not in content, "nothing about our source code"
    for batch, height, width in ((1, 24, 24), (3, 100, 31)):
        pixels = np.zeros((batch, height, width, 3), np.uint8)
        probabilities = engine(pixels)
        assert probabilities.shape == (batch, 3)
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


def test_onnx_runtime_alone_is_enough(exported: Any, bundle: Path, pictures: Path) -> None:
    """The file by hand, as somebody without reslearn uses it."""
    import onnx
    import onnxruntime

    path = exported.paths[ExportForm.ONNX]
    model = onnx.load(path)
    assert next(entry.version for entry in model.opset_import if entry.domain == "") >= 18
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    classes = json.loads(metadata["classes"])
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_param for axis in shape[:3]] == ["batch", "height", "width"]
    picture = paths_of(pictures / "test" / "red")[0]
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ((probabilities,),) = session.run(["probabilities"], {"image": pixels[None]})
    (prediction,) = Predictor(bundle)(picture)
    assert classes[probabilities.argmax()] == prediction.label
    np.testing.assert_allclose(probabilities, prediction.probabilities, atol=0.01)


def test_a_large_photo_gets_the_same_answer(exported: Any, bundle: Path, tmp_path: Path) -> None:
    """It is decoded at a fraction of its size, and the file resizes it."""
    y, x = np.mgrid[:1500, :2000] / 1500
    waves = np.stack([np.sin(9 * x * y), np.cos(7 * x), np.sin(50 * y)], axis=2)
    Image.fromarray((127 + 120 * waves).astype(np.uint8)).save(tmp_path / "a.jpg", quality=95)
    expected = answers(Predictor(bundle), tmp_path / "a.jpg")
    card = open_model(bundle).card
    parts = ModelInput(replace(card, input_kind="image")).pixels(tmp_path / "a.jpg")
    full = ModelInput(replace(card, input_kind="image"), decodes_fully=True)
    assert parts.shape == (188, 250, 3)
    assert full.pixels(tmp_path / "a.jpg").shape == (1500, 2000, 3)
    for form in (ExportForm.ONNX, ExportForm.OPENVINO):
        actual = answers(Predictor(exported.paths[form]), tmp_path / "a.jpg")
        np.testing.assert_allclose(actual, expected, atol=0.02)


@pytest.fixture(scope="module")
def images(bundle: Path, pictures: Path) -> ParityImages:
    card = card_of_bundle(open_bundle(bundle))
    return load_parity_images(bundle, card, data_name=str(pictures), num_images=6)


def test_nothing_is_written_if_the_gate_fails(
    bundle: Path, images: ParityImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preprocessing that exists twice, and differs, is the fault that the gate is for."""

    def broken(x: torch.Tensor, **lengths: int) -> torch.Tensor:
        return torch.nn.functional.interpolate(x, size=(24, 24), mode="nearest")

    monkeypatch.setattr("reslearn.deploy.preprocess_graph.resize_and_crop", broken)
    monkeypatch.setattr(form_speed, "_SECONDS", 0.0)
    target = tmp_path / "net.pt2"
    target.write_bytes(b"before")
    report = export_forms(open_bundle(bundle), {ExportForm.TORCH_EXPORT: target}, images)
    assert not report.is_written
    assert "the file: a probability differs by" in report.rows[1].problems[0]
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target], "no temporary file is left"


@pytest.mark.parametrize("kind", ["crop", "tensor"])
def test_other_inputs(
    kind: Any,
    bundle: Path,
    pictures: Path,
    images: ParityImages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(form_speed, "_SECONDS", 0.0)
    target = tmp_path / "net.pt2"
    opened = open_bundle(bundle)
    report = export_forms(opened, {ExportForm.TORCH_EXPORT: target}, images, input_kind=kind)
    assert report.is_written
    assert report.rows[1].served.largest_difference < 1e-5
    paths = paths_of(pictures)[:5]
    np.testing.assert_allclose(
        answers(Predictor(target), paths), answers(Predictor(bundle), paths), atol=1e-5
    )


def test_other_files_are_refused(exported: Any, tmp_path: Path) -> None:
    import onnx

    foreign = tmp_path / "foreign.onnx"
    model = onnx.load(exported.paths[ExportForm.ONNX])
    del model.metadata_props[:]
    onnx.save(model, foreign)
    assert not is_exported(foreign)
    with pytest.raises(WeightsError, match="holds no network of the catalog"):
        open_model(foreign)
    with pytest.raises(WeightsError, match="was not written by `reslearn export`"):
        open_exported(foreign)
    damaged_metadata = tmp_path / "damaged.onnx"
    model = onnx.load(exported.paths[ExportForm.ONNX])
    next(entry for entry in model.metadata_props if entry.key == "classes").value = "[1]"
    onnx.save(model, damaged_metadata)
    with pytest.raises(WeightsError, match="damaged metadata: classes must be a list of names"):
        open_model(damaged_metadata)
    for suffix, message in ((".onnx", "not an ONNX file"), (".xml", "OpenVINO"), (".pt2", "torch")):
        path = tmp_path / f"text{suffix}"
        path.write_text("reslearn_format")
        with pytest.raises(WeightsError, match=message):
            open_model(path)
    alone = tmp_path / "alone.xml"
    alone.write_bytes(exported.paths[ExportForm.OPENVINO].read_bytes())
    with pytest.raises(WeightsError, match=r"alone\.bin beside it: .*cannot be found"):
        open_model(alone)


@pytest.mark.parametrize("form", ExportForm)
def test_commands_that_need_the_network_refuse_a_file(form: ExportForm, exported: Any) -> None:
    with pytest.raises(WeightsError, match="is a file of `reslearn export`, which only"):
        read_checkpoint(exported.paths[form])


def test_a_damaged_file_logs_nothing(
    exported: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tmp_path / "cut.pt2"
    damaged.write_bytes(exported.paths[ExportForm.TORCH_EXPORT].read_bytes()[:5000])
    with pytest.raises(WeightsError, match="not a torch"):
        open_model(damaged)
    assert caplog.text == ""


def test_a_torch_export_file_cannot_run_pickled_code(
    exported: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch itself would load a pickle that is no tensor without protection."""

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "was-run",)

    evil = io.BytesIO()
    torch.save({"x": Evil()}, evil)
    path = tmp_path / "net.pt2"
    with (
        zipfile.ZipFile(exported.paths[ExportForm.TORCH_EXPORT]) as archive,
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as copy,
    ):
        names = [name for name in archive.namelist() if "sample_inputs" in name]
        assert names, "the file has example inputs, which are a pickle"
        for name in archive.namelist():
            copy.writestr(name, evil.getvalue() if name in names else archive.read(name))
    with pytest.raises(WeightsError, match=r"net\.pt2: not a torch\.export file"):
        open_model(path)
    assert not (tmp_path / "was-run").exists()


def test_the_tolerance_depends_on_form_and_input() -> None:
    assert export._tolerance(ExportForm.ONNX, "image", None) == 0.05
    assert export._tolerance(ExportForm.ONNX, "tensor", None) == 0.001
    assert export._tolerance(ExportForm.INT8, "crop", None) == 0.25
    assert export._tolerance(ExportForm.INT8, "crop", 0.1) == 0.1


def test_calibration_needs_training_images(bundle: Path, images: ParityImages) -> None:
    with pytest.raises(ValueError, match="int8 needs training images"):
        export_forms(open_bundle(bundle), {ExportForm.INT8: Path("net.onnx")}, images)


def test_pictures_without_classes_have_no_accuracy(
    make_bundle: Callable[..., Path], bundle: Path, pictures: Path
) -> None:
    card = card_of_bundle(open_bundle(bundle))
    folder = pictures / "test" / "red"
    loaded = load_parity_images(bundle, card, data_name=str(folder), num_images=3)
    assert (len(loaded.pictures), loaded.labels, loaded.calibration) == (3, None, [])
    with pytest.raises(ValueError, match="int8 needs training images"):
        load_parity_images(bundle, card, data_name=str(folder), num_calibration=4)
    with pytest.raises(ValueError, match="needs real images: name them, as in --data"):
        load_parity_images(bundle, card)
    digits = load_parity_images(bundle, card, data_name=str(pictures), image_set="train")
    assert digits.labels is not None and len(digits.labels) == 18


def test_the_module_is_exported_in_evaluation_mode(bundle: Path) -> None:
    opened = open_bundle(bundle)
    module = PixelsToProbabilities(opened.network.train(), opened.preprocess)
    assert not any(part.training for part in module.modules())
