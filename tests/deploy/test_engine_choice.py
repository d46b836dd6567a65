"""The fastest engine is measured once and kept; one that computes other answers is not chosen."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reslearn.deploy import OpenedModel, converted_networks, engine_choice, open_model
from reslearn.deploy.converted_networks import ConvertedNetwork, files_of, weights_digest
from reslearn.deploy.engine_choice import (
    ServeEngine,
    choice_folder,
    converted_folder,
    with_engine,
)
from reslearn.deploy.engines import InferenceEngine, open_exported
from reslearn.deploy.form_speed import FormSpeed
from reslearn.deploy.forms import ExportForm, FormWriter
from reslearn.deploy.model_card import ModelCard
from reslearn.runs import json_files

# The tests have two networks, and a conversion takes seconds.
WRITTEN: dict[tuple[str, str], dict[str, bytes]] = {}
OPENED: dict[bytes, tuple[ModelCard, InferenceEngine]] = {}
TIMES_MS = {"torch": 9.0, "onnx": 2.0, "openvino": 4.0}
CONVERSIONS: list[str] = []


class WriterOfOnce(FormWriter):
    """Convert each network only once, and note what was to be converted."""

    def write(self, form: ExportForm, path: Path, **options: Any) -> None:
        CONVERSIONS.append(form.value)
        key = (weights_digest(self.module.network), form.value)
        if key not in WRITTEN:
            super().write(form, path, **options)
            WRITTEN[key] = {file.suffix: file.read_bytes() for file in files_of(path)}
        for suffix, content in WRITTEN[key].items():
            path.with_suffix(suffix).write_bytes(content)


def open_once(path: Path, *, threads: int | None = None) -> tuple[ModelCard, InferenceEngine]:
    content = b"".join(file.read_bytes() for file in files_of(path))
    if content not in OPENED:
        OPENED[content] = open_exported(path, threads=threads)
    return OPENED[content]


@pytest.fixture
def measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Return the names of the engines of each measurement. Their times are TIMES_MS."""
    calls: list[set[str]] = []

    def measure(models: dict[str, object], *, seconds: float) -> dict[str, FormSpeed]:
        calls.append(set(models))
        return {
            name: FormSpeed(latency_ms=time_ms, images_per_s=1000 / time_ms, picture_px=24)
            for name, time_ms in TIMES_MS.items()
            if name in models
        }

    CONVERSIONS.clear()
    monkeypatch.setattr(engine_choice, "FormWriter", WriterOfOnce)
    monkeypatch.setattr(engine_choice, "open_exported", open_once)
    monkeypatch.setenv("RESLEARN_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(engine_choice, "measure_speeds", measure)
    return calls


def test_the_fastest_engine_is_measured_once(bundle: Path, measurements: list[set[str]]) -> None:
    model = open_model(bundle)
    batch = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    for is_first in (True, False):
        chosen, choice = with_engine(model, ServeEngine.AUTO, processor="P", threads=1)
        assert chosen.engine.runtime == "onnxruntime"
        assert chosen.engine(batch) == pytest.approx(model.engine(batch), abs=1e-4)
        assert choice is not None and choice.is_new == is_first
        assert "engine onnx, the fastest" in choice.text()
    assert measurements == [{"torch", "onnx", "openvino"}]
    assert CONVERSIONS == ["onnx", "openvino"]


@pytest.mark.parametrize(
    ("engine", "damage"),
    [
        (ServeEngine.ONNX, "no file"),
        (ServeEngine.ONNX, "cut"),
        (ServeEngine.ONNX, "one bit"),
        (ServeEngine.ONNX, "no digests"),
        (ServeEngine.ONNX, "no JSON"),
        (ServeEngine.ONNX, "of another network"),
        (ServeEngine.OPENVINO, "one bit"),
    ],
)
def test_a_damaged_or_foreign_network_is_converted_again(
    bundle: Path, measurements: list[set[str]], engine: ServeEngine, damage: str
) -> None:
    model = open_model(bundle)
    batch = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    with_engine(model, engine, threads=1)
    (folder,) = converted_folder().iterdir()
    path = folder / f"model{ExportForm(engine.value).suffix}"
    content = bytearray(path.read_bytes())
    if damage == "no file":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "one bit":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "no digests":
        (folder / "digests.json").unlink()
    elif damage == "no JSON":
        (folder / "digests.json").write_text("{")
    else:  # even if its digests are right
        replace_by_another(folder, model)
    for num_conversions in (2, 2):  # the second time, the network is kept again
        chosen, _ = with_engine(model, engine, threads=1)
        assert chosen.engine(batch) == pytest.approx(model.engine(batch), abs=1e-4)
        assert len(CONVERSIONS) == num_conversions


def replace_by_another(folder: Path, model: OpenedModel) -> None:
    """Put a network with other weights into a folder, and the digests of its file."""
    import onnx

    path = folder / "model.onnx"
    network = onnx.load(path)
    for tensor in network.graph.initializer:
        if len(tensor.dims) > 1:
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(-3 * values, tensor.name))
    onnx.save(network, path)
    digests = json_files.file_digests([path], folder)
    (folder / "digests.json").write_text(json.dumps(digests))
    assert ConvertedNetwork(
        converted_folder(), model.require_network(), model.card, ExportForm.ONNX
    ).path()


def test_only_the_networks_that_were_used_last_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: Path
) -> None:
    monkeypatch.setattr(converted_networks, "_MAX_NETWORKS", 2)
    model = open_model(bundle)
    (tmp_path / "net.onnx").write_bytes(b"x")
    places = []
    for number in range(3):
        card = replace(model.card, name=str(number))
        network = model.require_network()
        places.append(ConvertedNetwork(tmp_path / "cache", network, card, ExportForm.ONNX))
    for seconds, place in enumerate(places[:2]):
        place.keep(tmp_path / "net.onnx")
        path = place.path()
        assert path is not None and path.read_bytes() == b"x"
        os.utime(path.parent, (seconds, seconds))
    assert places[0].path() is not None  # it is used now
    places[2].keep(tmp_path / "net.onnx")
    assert [place.path() is not None for place in places] == [True, False, True]


def test_a_cache_that_cannot_be_written_keeps_nothing(
    bundle: Path, measurements: list[set[str]], tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("no folder")
    chosen, _ = with_engine(open_model(bundle), ServeEngine.ONNX, threads=1)
    assert chosen.engine.runtime == "onnxruntime"


@pytest.mark.parametrize(
    "damage",
    ["", "{}", '{"conditions": 1}', "wrong time", "remove an engine", "other versions"],
)
def test_a_damaged_or_old_record_is_measured_again(
    bundle: Path, measurements: list[set[str]], damage: str
) -> None:
    model = open_model(bundle)
    with_engine(model, ServeEngine.AUTO, processor="P", threads=1)
    (path,) = choice_folder().glob("*.json")
    record = json.loads(path.read_text())
    if damage == "remove an engine":
        del record["speeds"]["onnx"]
    elif damage == "wrong time":
        record["speeds"]["onnx"]["latency_ms"] = "soon"
    elif damage == "other versions":
        record["conditions"]["versions"]["openvino"] = "1.0"
    path.write_text(json.dumps(record) if " " in damage and damage[0] != "{" else damage)
    _, choice = with_engine(model, ServeEngine.AUTO, processor="P", threads=1)
    assert choice is not None and choice.is_new and len(measurements) == 2


def test_each_processor_has_its_own_choice(bundle: Path, measurements: list[set[str]]) -> None:
    model = open_model(bundle)
    for processor in ("P", "Q"):
        with_engine(model, ServeEngine.AUTO, processor=processor, threads=1)
    assert len(measurements) == len(list(choice_folder().glob("*.json"))) == 2


def test_without_other_libraries_pytorch_computes(
    bundle: Path, measurements: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_choice, "are_installed", lambda modules: False)
    chosen, choice = with_engine(open_model(bundle), ServeEngine.AUTO)
    assert chosen.engine.runtime == "torch"
    assert choice is not None and choice.path is None and not measurements


def test_an_engine_with_other_answers_is_not_chosen(
    bundle: Path, measurements: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tolerance is one in a thousand: 0.0011 is refused, and 0.0009 is not."""
    model = open_model(bundle)
    monkeypatch.setattr(engine_choice, "_difference", lambda *_: 0.0009)
    chosen, _ = with_engine(model, ServeEngine.AUTO, threads=1)
    assert chosen.engine.runtime == "onnxruntime"
    monkeypatch.setattr(engine_choice, "_difference", lambda *_: 0.0011)
    with pytest.raises(ValueError, match=r"differ by 0.0011 from PyTorch: use --engine torch"):
        with_engine(model, ServeEngine.ONNX, threads=1)
    # The record names ONNX Runtime, but with these weights it is wrong.
    chosen, choice = with_engine(model, ServeEngine.AUTO, threads=1)
    assert chosen.engine.runtime == "torch"
    assert choice is not None and choice.is_new and choice.path is None


def test_an_engine_that_fails_is_left_out_and_nothing_is_kept(
    bundle: Path, measurements: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = engine_choice._converted

    def fail_for_onnx(model: OpenedModel, engine: ServeEngine, *arguments: Any) -> OpenedModel:
        if engine is ServeEngine.ONNX:
            raise RuntimeError("the exporter is broken")
        return convert(model, engine, *arguments)

    monkeypatch.setattr(engine_choice, "_converted", fail_for_onnx)
    chosen, choice = with_engine(open_model(bundle), ServeEngine.AUTO, threads=1)
    assert chosen.engine.runtime == "openvino"
    assert choice is not None and choice.path is None
    assert measurements == [{"torch", "openvino"}]
