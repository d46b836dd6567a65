"""Settings and fixtures of all tests: one thread, no progress bars, no window, no user settings."""

import functools
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

# A shell starts background jobs with Ctrl-C ignored, and child processes inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Set before torch or matplotlib is imported. Parallel test processes are faster with one thread.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["RESLEARN_PROGRESS"] = "off"
for name in ("RESLEARN_DEBUG", "RESLEARN_DATA"):
    os.environ.pop(name, None)
# Otherwise each of the many processes that tests start would compile our modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A process builds its commands once, in 33 ms. The tests run hundreds of commands in one process.
sys.path.insert(0, str(Path(__file__).parent))  # for modules that tests of many rooms use
typer.main.get_command = functools.cache(typer.main.get_command)


# Files that take eight seconds or more. They begin first, so that all processes end together.
LONG_FILES = (
    "deploy/test_export.py",
    "deploy/test_engine_choice.py",
    "train/test_distributed.py",
    "train/test_resume.py",
    "train/test_pictures_on_disk.py",
    "train/test_export_note.py",
    "docs/test_service_page.py",
    "docs/test_examples.py",
    "docs/test_photos_page.py",
    "docs/test_contributing.py",
    "docs/test_site.py",
    "cli/test_train_photos.py",
    "cli/test_export_command.py",
    "cli/test_evaluate.py",
    "cli/test_predict.py",
    "cli/test_interrupted_start.py",
    "contract/test_dialects.py",
    "interop/test_start_from_weights.py",
    "paper/test_exhibits.py",
    "paper/test_claims_on_networks.py",
    "diagnose/test_screening_network.py",
    "diagnose/test_proof.py",
    "report/test_browser.py",
    "data/test_decode.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one process more than there are cores, and four at most.

    Tests wait for processes, servers and browsers in a sixth of their time.
    """
    return min(os.cpu_count() or 1, 3) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with `LONG_FILES` where processes share the tests."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    folder = Path(__file__).parent
    ranks = {folder / name: rank for rank, name in enumerate(LONG_FILES)}
    assert all(path.is_file() for path in ranks), "a file of LONG_FILES is missing"
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Set up libraries. The process that distributes the tests of `make test` needs none."""
    if session.config.getoption("numprocesses", None):
        return
    import torch
    from hypothesis import settings

    from reslearn.report.png import figure_png

    torch.set_num_threads(1)
    # A ninth of the pixels. The tests draw hundreds of figures, and look at some of them only.
    figure_png.__kwdefaults__["dots_per_inch"] = 50
    if not torch.cuda.is_available():
        # Each of many thousand seeds would format the stack, for a GPU that may come later.
        for device in (torch.cuda, torch.xpu, torch.mtia):
            device.manual_seed_all = lambda seed: None
    # A deadline would assert a time. Without randomness a failure happens on every machine.
    settings.register_profile("reslearn", deadline=None, derandomize=True)
    settings.load_profile("reslearn")


def pytest_collection_finish() -> None:
    """Let the garbage collector leave out the million objects that imports made, and run less.

    It would take 6 % of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def _known_seed() -> None:
    """Seed torch, so that tests do not depend on their order."""
    import torch

    # torch.manual_seed would seed each kind of device, in half a millisecond.
    torch.default_generator.manual_seed(0)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(0)


@pytest.fixture
def few_trials(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`few_trials(MIN_STEPS=4)`: a diagnosis makes as few trials as possible.

    Keyword arguments set further constants of a diagnosis.
    """
    from reslearn.diagnose import experiment, plan, quick_rounds, stages

    rooms = (plan, experiment, quick_rounds, stages)

    def set_constants(**further: Any) -> None:
        constants: dict[str, Any] = {"LR_FACTORS": (1.0,), "FEWEST_SEEDS": 1, "MAX_SEEDS": {1: 1}}
        constants["_SHARE_OF_TIME"] = 0.0  # one quick round
        constants |= further
        for name, value in constants.items():
            modules = [module for module in rooms if hasattr(module, name)]
            assert modules, name
            for module in modules:
                monkeypatch.setattr(module, name, value)

    return set_constants


@pytest.fixture(scope="session")
def make_pictures() -> Callable[..., Path]:
    """Return `make(folder, train=9, test=3)`, which writes class folders as people have them.

    Sizes are odd. Some pictures are gray, transparent or rotated by EXIF. Pictures of one class
    share a color.
    """
    import numpy as np
    from PIL import Image

    def make(
        folder: Path, *, classes: tuple[str, ...] = ("blue", "green", "red"), **splits: int
    ) -> Path:
        random = np.random.default_rng(0)
        for split, num_images in splits.items():
            for label, name in enumerate(classes):
                (folder / split / name).mkdir(parents=True)
                for number in range(num_images):
                    shape = (random.integers(21, 60), random.integers(21, 60), 3)
                    pixels = random.integers(0, 120, shape, dtype=np.uint8)
                    pixels[:, :, 2 - label % 3] += 100
                    write_picture(folder / split / name, number, pixels)
        return folder

    def write_picture(folder: Path, number: int, pixels: Any) -> None:
        mode, suffix, exif = "RGB", "jpg", Image.Exif()
        if number % 5 == 1:
            mode = "L"
        elif number % 5 == 2:
            mode, suffix = "RGBA", "png"
        elif number % 5 == 3:
            exif[0x0112] = 6  # rotate by 90 degrees
        Image.fromarray(pixels).convert(mode).save(folder / f"{number}.{suffix}", exif=exif)

    return make


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def reslearn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `reslearn` in this process.

    It returns the exit status, the standard output and the standard error.
    """
    from reslearn.cli import commands

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reslearn", *map(str, arguments)])
        monkeypatch.setattr("warnings.showwarning", None)  # main sets it; this restores it
        with pytest.raises(SystemExit) as exit_info:
            commands.main()
        output = capsys.readouterr()
        return int(exit_info.value.code or 0), output.out, output.err

    return run


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return `make(in_channels=3, shorter_px=28, temperature=1.5, ...)`, which writes a bundle.

    It is a resnet8 for pictures of 24 pixels and the classes blue, green and red. `weight_scale`
    multiplies the weights of its head, so that probabilities differ from picture to picture.
    """
    import torch

    from reslearn import models
    from reslearn.data import Images, Preprocess
    from reslearn.interop import to_bytes

    def make(
        *,
        in_channels: int = 3,
        shorter_px: int | None = 28,
        temperature: float = 1.5,
        weight_scale: float = 8.0,
    ) -> Path:
        torch.manual_seed(5)
        network = models.build("resnet8", num_classes=3, in_channels=in_channels)
        pixels = torch.randint(0, 256, (9, 24, 24, in_channels), dtype=torch.uint8)
        preprocess = Preprocess.fit(
            Images(pixels, torch.zeros(9, dtype=torch.int64)), shorter_px=shorter_px
        )
        network.train()
        with torch.no_grad():
            # Batch norm gets statistics, so that logits differ from picture to picture.
            network(preprocess(pixels))
            network.head.get_submodule("fc").weight.mul_(weight_scale)
        path = tmp_path_factory.mktemp("bundle") / "model.safetensors"
        path.write_bytes(
            to_bytes(
                network,
                spec=network.spec,
                classes=("blue", "green", "red"),
                preprocess=preprocess,
                metrics={},
                recipe_hash="0123456789ab",
                temperature=temperature,
            )
        )
        return path

    return make


@pytest.fixture(scope="session")
def bundle(make_bundle: Callable[..., Path]) -> Path:
    """The default network of `make_bundle`."""
    return make_bundle()
