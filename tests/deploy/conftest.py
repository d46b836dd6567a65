"""All forms of a small network, pictures of many kinds, and a server, for tests of deployment."""

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from reslearn.deploy import Predictor, export, form_speed
from reslearn.deploy.export import ExportReport, export_forms
from reslearn.deploy.forms import ExportForm
from reslearn.deploy.open_model import card_of_bundle, open_bundle
from reslearn.deploy.parity_images import load_parity_images

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:  # the extra `serve` may be missing
    from reslearn.deploy.server_app import ModelServer


@pytest.fixture(scope="session")
def pictures(make_pictures: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of small pictures: train/, validation/ and test/."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    return make_pictures(folder, train=6, validation=5, test=4)


@dataclass(frozen=True, kw_only=True)
class Exported:
    """All forms of the bundle, with input "image"."""

    report: ExportReport
    paths: dict[ExportForm, Path]


@pytest.fixture(scope="session")
def exported(bundle: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Export the bundle in all forms, once for all tests."""
    for library in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(library, reason="pip install 'reslearn[export]'")
    folder = tmp_path_factory.mktemp("exported")
    suffixes = {ExportForm.INT8: ".int8.onnx"}
    paths = {form: folder / ("net" + suffixes.get(form, form.suffix)) for form in ExportForm}
    opened = open_bundle(bundle)
    images = load_parity_images(
        bundle, card_of_bundle(opened), data_name=str(pictures), num_calibration=18
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(form_speed, "_SECONDS", 0.0)
        patch.setattr(export, "_INT8_TOLERANCE", 0.5)
        report = export_forms(opened, paths, images, license="CC-BY-4.0", threads=1)
    return Exported(report=report, paths=paths)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Return random gray levels, uint8."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor(bundle)


@pytest.fixture(scope="module")
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def model_server(predictor: Predictor, log: io.StringIO) -> "ModelServer":
    from served import LIMITS

    from reslearn.deploy.server_app import ModelServer

    return ModelServer({"a": predictor, "b": predictor}, LIMITS, log_stream=lambda: log)


@pytest.fixture(scope="module")
def address(model_server: "ModelServer") -> Iterator[str]:
    from reslearn.deploy.server import serving

    with serving(model_server) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    # Without verify=False each client would load the certificates of the machine.
    with httpx.Client(base_url=address, timeout=20, verify=False) as client:
        yield client
