"""A small network as a bundle, and pictures of many kinds, shared by the tests of deployment."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from reslearn import models
from reslearn.data import Images, Preprocess
from reslearn.interop import to_bytes

CLASSES = ("blue", "green", "red")
SIZE_PX, SHORTER_PX = 24, 28
MakeBundle = Callable[..., Path]


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Return `make(in_channels=3, shorter_px=28, temperature=None)`, which writes a bundle."""

    def make(
        *, in_channels: int = 3, shorter_px: int | None = SHORTER_PX, temperature: float = 1.5
    ) -> Path:
        torch.manual_seed(5)
        network = models.build("resnet8", num_classes=3, in_channels=in_channels)
        pixels = torch.randint(0, 256, (9, SIZE_PX, SIZE_PX, in_channels), dtype=torch.uint8)
        preprocess = Preprocess.fit(
            Images(pixels, torch.zeros(9, dtype=torch.int64)), shorter_px=shorter_px
        )
        network.train()
        with torch.no_grad():
            # Batch norm gets statistics, so that logits differ from picture to picture.
            network(preprocess(pixels))
            network.head.get_submodule("fc").weight.mul_(8)
        path = tmp_path_factory.mktemp("bundle") / "model.safetensors"
        path.write_bytes(
            to_bytes(
                network,
                spec=network.spec,
                classes=CLASSES,
                preprocess=preprocess,
                metrics={},
                recipe_hash="0123456789ab",
                temperature=temperature,
            )
        )
        return path

    return make


@pytest.fixture(scope="session")
def bundle(make_bundle: MakeBundle) -> Path:
    """A resnet8 for three classes of pictures of 24 pixels."""
    return make_bundle()


@pytest.fixture(scope="session")
def pictures(make_pictures: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of small pictures: train/, validation/ and test/."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    return make_pictures(folder, train=6, validation=5, test=4)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Return random gray levels, uint8."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
