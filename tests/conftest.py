"""What holds for every test: one thread, no progress bars, no window, no data or settings of whoever runs them."""

import os

# Before anything imports torch or matplotlib: several of them at a time on two cores are slower than one thread each.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["RESLEARN_PROGRESS"] = "off"
os.environ.pop("RESLEARN_DEBUG", None)
os.environ.pop("RESLEARN_DATA", None)

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

# A deadline would be a timed assertion; derandomised, so that a failure on one machine is a failure on all.
settings.register_profile("reslearn", deadline=None, derandomize=True)
settings.load_profile("reslearn")


@pytest.fixture(autouse=True)
def _known_seed() -> None:
    """Tests do not depend on the order in which they run."""
    torch.manual_seed(0)
