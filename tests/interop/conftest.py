"""Weight files that several tests of this room read."""

from pathlib import Path

import pytest
import torch

from reslearn import models
from reslearn.interop import dialect_named, write_weights


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Write resnet8 with option B and 5 classes in dialect cifar-fc."""
    net = models.build("resnet8", num_classes=5, shortcut="B")
    net.train()(torch.randn(4, 3, 8, 8))
    write_weights(net, tmp_path / "foreign.pth", dialect_named("cifar-fc"))
    return tmp_path / "foreign.pth"
