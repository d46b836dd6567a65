"""The fastest engine is measured once and kept; one that computes other answers is not chosen."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reslearn.deploy import OpenedModel, engine_choice, open_model
from reslearn.deploy.engine_choice import ServeEngine, choice_folder, with_engine
from reslearn.deploy.engines import InferenceEngine, open_exported
from reslearn.deploy.form_speed import FormSpeed
from reslearn.deploy.forms import ExportForm, FormWriter
from reslearn.deploy.model_card import ModelCard

# The tests have one network, and a conversion takes seconds.
OPENED: dict[str, tuple[ModelCard, InferenceEngine]] = {}
TIMES_MS = {"torch": 9.0, "onnx": 2.0, "openvino": 4.0}


class WriterOfOnce(FormWriter):
    """Write and open each form only once."""

    def write(self, form: ExportForm, path: Path, **options: Any) -> None:
        if path.suffix not in OPENED:
            super().write(form, path, **options)
            OPENED[path.suffix] = open_exported(path, threads=1)


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

    monkeypatch.setattr(engine_choice, "FormWriter", WriterOfOnce)
    monkeypatch.setattr(engine_choice, "open_exported", lambda path, threads: OPENED[path.suffix])
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


@pytest.mark.parametrize(
    "damage",
    ["", "{}", '{"conditions": 1}', "wrong time", "remove an engine", "other versions"],
)
def test_a_damaged_or_old_record_is_measured_again(
    bundle: Path, measurements: list[set[str]], damage: str
) -> None:
    model = open_model(bundle)
    with_engine(model, ServeEngine.AUTO, processor="P", threads=1)
    (path,) = choice_folder().iterdir()
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
    assert len(measurements) == len(list(choice_folder().iterdir())) == 2


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
