"""Networks that come with the package: found by name, half as large, and as good as measured."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslearn import models
from reslearn.data import Images, Preprocess
from reslearn.interop import (
    WeightsError,
    create_model,
    identify,
    list_models,
    preprocess_with,
    read_bundle,
    shipped,
    to_bytes,
)
from reslearn.train import Machine, evaluate_bundle

# The developers' copy of CIFAR-10 lies beside the project. It is never committed.
MOSAIC = Path(__file__).parents[3] / "shared" / "data" / "cifar10" / "test_batch.webp"
ENTRY = """[{name}]
file = "{name}.safetensors"
data = "cifar10"
recipe = "cifar-fast"
seed = 0
test_error_pct = 8.4
test_images = 10000
processor = "a processor"
license = "Apache-2.0"
"""


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[models.Network]:
    """Ship one small network, resnet8, out of a folder of this test."""
    torch.manual_seed(3)
    net = models.build("resnet8", num_classes=10).eval()
    pixels = torch.randint(0, 256, (9, 8, 8, 3), dtype=torch.uint8)
    content = to_bytes(
        net,
        spec=net.spec,
        classes=[f"kind {number}" for number in range(10)],
        preprocess=Preprocess.fit(Images(pixels, torch.zeros(9, dtype=torch.int64))),
        metrics={},
        recipe_hash="0123456789ab",
        half_precision=True,
    )
    (tmp_path / "resnet8.safetensors").write_bytes(content)
    (tmp_path / "shipped.toml").write_text(ENTRY.format(name="resnet8"))
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path)
    shipped.shipped_networks.cache_clear()
    yield net
    shipped.shipped_networks.cache_clear()


def test_a_shipped_network_is_a_source_of_weights(network: models.Network) -> None:
    x = torch.randn(2, 3, 16, 16)
    assert "reslearn:resnet8" in list_models(pretrained=True)
    for pretrained in (True, "reslearn:resnet8"):
        loaded = create_model("resnet8", pretrained=pretrained)
        assert next(loaded.parameters()).dtype == torch.float32
        # Half precision rounds a weight by at most one part in 2,048.
        torch.testing.assert_close(loaded(x), network(x), rtol=0.02, atol=0.02)
    with pytest.raises(WeightsError, match=r"there are: reslearn:resnet8"):
        create_model("resnet8", pretrained="reslearn:resnet9000")


def test_half_precision_halves_the_file_and_keeps_batch_norm(network: models.Network) -> None:
    path = shipped.shipped_path("reslearn:resnet8")
    bundle = read_bundle(path)
    numbers = sum(tensor.numel() for tensor in network.state_dict().values())
    assert path.stat().st_size < 2.5 * numbers + 20_000
    for name, tensor in bundle.network.state_dict().items():
        original = network.state_dict()[name]
        expected = original.half().float() if original.ndim > 1 else original
        assert torch.equal(tensor, expected), name


def test_a_per_pixel_mean_becomes_a_mean_per_channel_for_images_of_another_size(
    network: models.Network,
) -> None:
    identity = identify("reslearn:resnet8")
    same = preprocess_with(identity, size_px=8, channels=3)
    other = preprocess_with(identity, size_px=64, channels=3)
    assert same is not None and other is not None
    assert same.mean.shape == (8, 8, 3) and other.size_px == 64
    assert torch.equal(other.mean, same.mean.mean(dim=(0, 1)))
    with pytest.raises(WeightsError, match="3 channels, but these images have 1"):
        preprocess_with(identity, size_px=64, channels=1)


@pytest.mark.parametrize("name", shipped.shipped_networks())
def test_the_measured_error_holds_on_some_test_images(name: str) -> None:
    """The error on 500 images lies within four standard errors of the error on all images."""
    if not MOSAIC.exists():
        pytest.skip(f"needs the test images of CIFAR-10 at {MOSAIC}")
    entry = shipped.shipped_networks()[name]
    assert entry.test_images == 10_000 and 0 < entry.test_error_pct < 12
    with Image.open(MOSAIC) as image:  # 100 x 100 images, row by row
        rows = np.asarray(image.crop((0, 0, 3200, 5 * 32)))
    pixels = rows.reshape(5, 32, 100, 32, 3).transpose(0, 2, 1, 3, 4).reshape(500, 32, 32, 3)
    digits = json.loads((MOSAIC.parent / "labels.json").read_text())["test_batch"]
    labels = torch.tensor([int(digit) for digit in digits[:500]])
    bundle = read_bundle(entry.path)
    with torch.inference_mode():
        outputs = bundle.network(bundle.preprocess(torch.from_numpy(pixels.copy())))
    error_pct = 100 * float((outputs.argmax(1) != labels).double().mean())
    error = entry.test_error_pct
    assert abs(error_pct - error) < 4 * (error * (100 - error) / 500) ** 0.5


def test_evaluate_accepts_a_shipped_name(network: models.Network) -> None:
    with pytest.raises(ValueError, match="has other classes"):
        evaluate_bundle(Path("reslearn:resnet8"), "digits", Machine())
