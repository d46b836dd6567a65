"""`reslearn export --to onnx,...`: through the gate, and wrong use in one line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslearn import models
from reslearn.cli.export_forms import FORMS
from reslearn.data import Images, Preprocess
from reslearn.interop import to_bytes

Run = Callable[..., tuple[int, str, str]]
PAGE = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(4)
    network = models.build("resnet8", num_classes=3)
    pixels = torch.randint(0, 256, (9, 16, 16, 3), dtype=torch.uint8)
    content = to_bytes(
        network,
        spec=network.spec,
        classes=["blue", "green", "red"],
        preprocess=Preprocess.fit(Images(pixels, torch.zeros(9, dtype=torch.int64))),
        metrics={},
        recipe_hash="0123456789ab",
    )
    path = tmp_path_factory.mktemp("bundle") / "model.safetensors"
    path.write_bytes(content)
    return path


@pytest.fixture
def photos(make_pictures: Callable[..., Path], tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "photos", train=4, validation=2, test=2)


@pytest.fixture(autouse=True)
def _short_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reslearn.deploy.form_speed._SECONDS", 0.0)


def test_export_predict_and_the_lines_of_the_page(
    bundle: Path,
    photos: Path,
    tmp_path: Path,
    reslearn: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library, reason="pip install 'reslearn[export]'")
    monkeypatch.chdir(tmp_path)
    arguments = ("export", bundle, "--data", photos, "--out", "photos.onnx", "--to", "onnx")
    status, output, _ = reslearn(*arguments)
    assert status == 0
    lines = output.splitlines()
    assert lines[0].split()[:3] == ["form", "accuracy", "difference"]
    assert [line.split()[0] for line in lines[1:3]] == ["torch", "onnx"]
    assert lines[-1] == ("photos.onnx: resnet8, onnx, input image: uint8 [batch, height, width, 3]")
    assert "6 validation images" in output
    status, _, errors = reslearn(*arguments)
    assert (status, errors) == (
        2,
        "reslearn: photos.onnx already exists: choose another --out, or pass --force\n",
    )

    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("cat.jpg")
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(block, "export.md", "exec"), {})
    label = capsys.readouterr().out.strip()
    answers = []
    for model in (bundle, "photos.onnx"):
        status, output, _ = reslearn("predict", model, "cat.jpg", "--json")
        assert status == 0
        answers.append(json.loads(output))
    assert answers[0]["class"] == answers[1]["class"] == label
    assert answers[0]["probability"] == pytest.approx(answers[1]["probability"], abs=0.01)
    status, _, errors = reslearn("predict", "photos.onnx", "cat.jpg", "--mean", "0.5")
    assert (status, errors.count("\n")) == (2, 1)
    assert "records its preprocessing and classes: leave out --mean" in errors
    status, _, errors = reslearn("predict", "photos.onnx", "cat.jpg", "--heat-map", "maps")
    assert (status, errors) == (
        2,
        "reslearn: photos.onnx is an exported file, and heat maps need the network: "
        "pass the run or the bundle\n",
    )
    assert not Path("maps").exists()


def test_a_form_that_does_not_agree_is_not_written(
    bundle: Path, photos: Path, tmp_path: Path, reslearn: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reslearn.deploy import forms

    recorded = forms.export_program
    programs: list[torch.export.ExportedProgram] = []

    def with_other_classes(module: torch.nn.Module, card: object) -> torch.export.ExportedProgram:
        class Turned(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.module = module

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.module(x).flip(1)

        if not programs:  # the second command takes the program of the first
            programs.append(recorded(Turned().eval(), card))  # type: ignore[arg-type]
        return programs[0]

    monkeypatch.setattr(forms, "export_program", with_other_classes)
    out = tmp_path / "net.pt2"
    arguments = ("export", bundle, "--data", photos, "--out", out, "--to", "torch-export")
    status, output, _ = reslearn(*arguments, "--tolerance", "0.001")
    assert status == 1
    assert "torch-export does not agree: the file: a probability differs by" in output
    assert output.endswith("nothing was written\n")
    assert not out.exists()
    status, output, _ = reslearn(*arguments, "--json", "--tolerance", "0.001")
    record = json.loads(output)
    assert (status, record["is_written"]) == (1, False)
    assert [form["form"] for form in record["forms"]] == ["torch", "torch-export"]
    assert record["forms"][1]["problems"]
    assert record["forms"][1]["served"]["num_images"] == 6


def test_wrong_use_is_one_line(bundle: Path, photos: Path, tmp_path: Path, reslearn: Run) -> None:
    out = tmp_path / "net.onnx"
    for arguments, message in (
        (("--to", "onnx"), "the parity gate needs real images: name them, as in --data photos"),
        (("--to", "onnxx"), "forms are onnx, openvino, torch-export, int8"),
        (("--to", "onnx,caffe"), "'caffe' is not a form; together are allowed: onnx, openvino"),
        (("--to", "openvino"), "the name of a file in the form openvino ends in .xml"),
        (("--to", "onnx", "--partial"), "--partial is for the weights of a dialect"),
        (("--to", "onnx", "--mean", "0.5"), "records its preprocessing and classes: leave out"),
        (("--to", "onnx", "--data", photos, "--images", "all"), "--images all is unknown"),
        (("--to", "onnx", "--data", "digits"), "size_px = 16: digits has 8 x 8 pixels"),
    ):
        status, _, errors = reslearn("export", bundle, *arguments, "--out", out)
        assert (status, errors.count("\n")) == (2, 1), errors
        assert message in errors
    assert not out.exists()
    weights = tmp_path / "net.bin"
    weights.write_bytes(b"somebody's")
    status, _, errors = reslearn(
        "export", bundle, "--to", "openvino", "--out", tmp_path / "net.xml"
    )
    assert status == 2
    assert f"{weights} already exists" in errors


def test_the_names_of_the_forms_agree() -> None:
    from reslearn.deploy.forms import ExportForm

    assert tuple(form.value for form in ExportForm) == FORMS
    for name in FORMS:
        assert f"| `{name}` |" in PAGE.read_text(encoding="utf-8")
