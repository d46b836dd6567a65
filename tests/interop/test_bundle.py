"""A bundle is read back bit for bit; truncated, foreign, empty or hostile files raise one line."""

import contextlib
import json
import os
import struct
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reslearn import models
from reslearn.data import Images, Preprocess
from reslearn.interop import (
    BundleError,
    WeightsError,
    identify,
    inspect_file,
    load_network,
    preprocess_with,
    read_bundle,
    to_bytes,
)
from reslearn.interop.file_digest import DIGEST_KEY, PLACEHOLDER, fill_digest

CLASSES = tuple(f"kind {number}" for number in range(4))


@pytest.fixture(scope="module")
def network() -> models.Network:
    torch.manual_seed(1)
    net = models.build("resnet8", num_classes=4, shortcut="B")
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net(torch.randn(4, 3, 8, 8))  # so that the statistics are not the initial ones
    return net.eval()


@pytest.fixture(scope="module")
def preprocess() -> Preprocess:
    images = Images(
        torch.randint(0, 256, (9, 8, 8, 3), dtype=torch.uint8), torch.zeros(9, dtype=torch.int64)
    )
    return Preprocess.fit(images)


@pytest.fixture(scope="module")
def content(network: models.Network, preprocess: Preprocess) -> bytes:
    return to_bytes(
        network,
        spec=network.spec,
        classes=CLASSES,
        preprocess=preprocess,
        metrics={"loss": 0.1},
        recipe_hash="0123456789ab",
    )


def test_round_trip_is_bitwise(
    tmp_path: Path, content: bytes, network: models.Network, preprocess: Preprocess
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    bundle = read_bundle(path)
    state = network.state_dict()
    assert list(bundle.network.state_dict()) == list(state)
    assert all(
        torch.equal(value, state[name]) for name, value in bundle.network.state_dict().items()
    )
    assert bundle.network.spec == network.spec
    assert (bundle.classes, bundle.metrics, bundle.recipe_hash, bundle.preprocess) == (
        CLASSES,
        {"loss": 0.1},
        "0123456789ab",
        preprocess,
    )
    assert not any(module.training for module in bundle.network.modules())
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(bundle.network(x), network(x))
    written_again = to_bytes(
        bundle.network,
        spec=network.spec,
        classes=CLASSES,
        preprocess=preprocess,
        metrics=bundle.metrics,
        recipe_hash="0123456789ab",
    )
    path.write_bytes(written_again)
    assert read_bundle(path).network.state_dict().keys() == state.keys()
    assert len(written_again) == len(content)


def test_the_temperature_is_read_back_and_is_one_without(
    tmp_path: Path, content: bytes, network: models.Network, preprocess: Preprocess
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert read_bundle(path).temperature == 1
    fields: dict[str, Any] = {
        "spec": network.spec,
        "classes": CLASSES,
        "preprocess": preprocess,
        "metrics": {"loss": 0.1},
        "recipe_hash": "0123456789ab",
    }
    assert b'"temperature"' not in content, "as before there were temperatures"
    path.write_bytes(to_bytes(network, **fields, temperature=1.734))
    assert read_bundle(path).temperature == 1.734


def test_inspection_of_a_bundle_counts_for_the_size_of_its_images(
    tmp_path: Path, content: bytes, network: models.Network
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert (inspect_file(path).size_px, inspect_file(path).macs) == (
        8,
        models.complexity(network, (3, 8, 8)).macs,
    )
    assert inspect_file(path, size_px=16).macs > inspect_file(path).macs


def error_of(path: Path) -> str:
    """Return the one-line error for a file that is no valid bundle."""
    with pytest.raises(BundleError) as error:
        read_bundle(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "bytes_",
    [b"", b"\0" * 100, b"not a bundle at all", b"\xff" * 64, struct.pack("<Q", 10) + b"[" * 10],
    ids=repr,
)
def test_foreign_files(tmp_path: Path, bytes_: bytes) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(bytes_)
    error_of(path)


def test_missing_file_folder_and_other_safetensors(tmp_path: Path) -> None:
    error_of(tmp_path / "absent")
    error_of(tmp_path)
    safetensors.torch.save_file({"x": torch.zeros(2)}, tmp_path / "other")
    assert "no bundle of reslearn" in error_of(tmp_path / "other")


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_bundle(tmp_path: Path, content: bytes, share: float) -> None:
    path = tmp_path / "cut"
    path.write_bytes(content[: int(share * len(content))])
    error_of(path)


def test_one_flipped_bit_is_refused(tmp_path: Path, content: bytes) -> None:
    """By every reader, wherever the bit is: in the header, in a weight, or in the digest."""
    path = tmp_path / "model.safetensors"
    header_length = 8 + int.from_bytes(content[:8], "little")
    digest_position = content.index(DIGEST_KEY.encode())
    positions = [
        *range(8, header_length, 97),
        *range(digest_position - 20, digest_position + 90, 3),
    ]
    positions += range(header_length, len(content), len(content) // 50)
    for position in positions:
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        error_of(path)
        with pytest.raises(WeightsError):
            load_network(path)
    path.write_bytes(content)
    read_bundle(path)


def test_values_that_are_not_finite_are_refused(
    tmp_path: Path, network: models.Network, preprocess: Preprocess
) -> None:
    bad = deepcopy(network)
    bad.get_buffer("stage1.0.body.bn1.running_var")[1] = float("nan")
    content = to_bytes(
        bad, spec=bad.spec, classes=CLASSES, preprocess=preprocess, metrics={}, recipe_hash=""
    )
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert "stage1.0.body.bn1.running_var holds NaN or infinity" in error_of(path)
    with pytest.raises(WeightsError, match="running_var holds NaN or infinity"):
        load_network(path)
    assert inspect_file(path).not_finite == ("stage1.0.body.bn1.running_var",)


Change = Callable[[dict[str, str], dict[str, torch.Tensor]], object]


def spec_with(**values: Any) -> Change:
    return lambda metadata, tensors: metadata.update(
        model=json.dumps({**json.loads(metadata["model"]), **values})
    )


CHANGES: dict[str, Change] = {
    "no spec": lambda metadata, tensors: metadata.pop("model"),
    "no hash": lambda metadata, tensors: metadata.pop("recipe_hash"),
    "temperature of zero": lambda metadata, tensors: metadata.update(temperature="0.0"),
    "temperature is not finite": lambda metadata, tensors: metadata.update(temperature="NaN"),
    "temperature is no number": lambda metadata, tensors: metadata.update(temperature='"1"'),
    "spec is no JSON": lambda metadata, tensors: metadata.update(model="{"),
    "spec is a list": lambda metadata, tensors: metadata.update(model="[1]"),
    "spec is nested deeply": lambda metadata, tensors: metadata.update(model="[" * 100_000),
    "unknown model": spec_with(name="os.system"),
    "model of a million layers": spec_with(name="resnet6000002"),
    "model of more layers than tensors": spec_with(name="resnet9002"),
    "no number of classes": lambda metadata, tensors: metadata.update(model='{"name": "resnet8"}'),
    "another model": spec_with(name="resnet14"),
    "no name": spec_with(name=None),
    "unknown switch": spec_with(hook="x"),
    "wrong switch": spec_with(shortcut="Z"),
    "huge head": spec_with(num_classes=10**12),
    "other classes": lambda metadata, tensors: metadata.update(classes='["one"]'),
    "classes are a text": lambda metadata, tensors: metadata.update(classes='"abcd"'),
    "metrics are a list": lambda metadata, tensors: metadata.update(metrics="[]"),
    "no preprocessing": lambda metadata, tensors: metadata.update(preprocess="{}"),
    "preprocessing is nested deeply": lambda metadata, tensors: metadata.update(
        preprocess="[" * 100_000
    ),
    "preprocessing for gray images": lambda metadata, tensors: metadata.update(
        preprocess='{"size_px": 8, "channels": 1, "mean": [0], "scale": [1], "padding": "black"}'
    ),
    "a missing tensor": lambda metadata, tensors: tensors.pop("stem.conv.weight"),
    "an additional tensor": lambda metadata, tensors: tensors.update(more=torch.zeros(1)),
    "another shape": lambda metadata, tensors: tensors.update(
        {"head.fc.weight": torch.zeros(4, 3)}
    ),
    "another type": lambda metadata, tensors: tensors.update(
        {"head.fc.weight": tensors["head.fc.weight"].double()}
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_hostile_or_damaged_content(tmp_path: Path, content: bytes, change: Change) -> None:
    path = tmp_path / "changed"
    path.write_bytes(content)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load(content)
    assert "head.fc.weight" in tensors
    change(metadata, tensors)
    # A hostile writer fills in a digest that fits.
    changed = safetensors.torch.save(tensors, {**metadata, DIGEST_KEY: PLACEHOLDER})
    path.write_bytes(fill_digest(changed))
    assert "a damaged bundle: " in error_of(path)
    # As a weight file it has fewer requirements: it is identified or raises WeightsError.
    with contextlib.suppress(WeightsError):
        preprocess_with(identify(path), size_px=8, channels=3)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "was run"),)

    torch.save({"model": Hostile()}, tmp_path / "model.safetensors")
    error_of(tmp_path / "model.safetensors")
    assert not (tmp_path / "was run").exists()
