"""What holds for every test: one thread, no progress bars, no window, no data or settings of whoever runs them."""

import os
import signal
import sys

# A shell starts its background jobs with Ctrl-C ignored, which they and all that they start would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Before anything imports torch or matplotlib: several of them at a time on two cores are slower than one thread each.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["RESLEARN_PROGRESS"] = "off"
os.environ.pop("RESLEARN_DEBUG", None)
os.environ.pop("RESLEARN_DATA", None)

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

torch.set_num_threads(1)

# A deadline would be a timed assertion; derandomized, so that a failure on one machine is a failure on all.
settings.register_profile("reslearn", deadline=None, derandomize=True)
settings.load_profile("reslearn")


@pytest.fixture(autouse=True)
def _known_seed() -> None:
    """Tests do not depend on the order in which they run."""
    torch.manual_seed(0)


@pytest.fixture
def few_trials(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`few_trials(MIN_STEPS=4)`: a diagnosis makes as few trials as there can be; what else is to be another number is named."""
    from reslearn.diagnose import budget, experiment

    def fewer(**others: Any) -> None:
        for name, value in {
            "LR_FACTORS": (1.0,),
            "FEWEST_SEEDS": 1,
            "MAX_SEEDS": {1: 1},
            **others,
        }.items():
            places = [module for module in (budget, experiment) if hasattr(module, name)]
            assert places, name
            for place in places:
                monkeypatch.setattr(place, name, value)

    return fewer


@pytest.fixture(scope="session")
def make_pictures() -> Callable[..., Path]:
    """`make_pictures(folder, train=9, test=3)`: class folders such as people have. Sizes are odd; some pictures are gray, transparent or
    held sideways by the camera; those of a class share a color."""

    def make(
        folder: Path, *, classes: tuple[str, ...] = ("blue", "green", "red"), **parts: int
    ) -> Path:
        random = np.random.default_rng(0)
        for part, num_images in parts.items():
            for label, name in enumerate(classes):
                (folder / part / name).mkdir(parents=True)
                for number in range(num_images):
                    pixels = random.integers(
                        0,
                        120,
                        (random.integers(21, 60), random.integers(21, 60), 3),
                        dtype=np.uint8,
                    )
                    pixels[:, :, 2 - label % 3] += 100
                    mode, suffix, exif = ("RGB", "jpg", Image.Exif())
                    if number % 5 == 1:
                        mode = "L"
                    elif number % 5 == 2:
                        mode, suffix = "RGBA", "png"
                    elif number % 5 == 3:
                        exif[0x0112] = 6  # to be turned by a quarter
                    Image.fromarray(pixels).convert(mode).save(
                        folder / part / name / f"{number}.{suffix}", exif=exif
                    )
        return folder

    return make


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def reslearn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`reslearn ...` in this process: exit status, standard output, standard error."""
    from reslearn import cli

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reslearn", *map(str, arguments)])
        monkeypatch.setattr(
            "warnings.showwarning", None
        )  # put back afterwards, though main sets it
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return run
