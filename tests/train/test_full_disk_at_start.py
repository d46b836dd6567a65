"""A disk that is full from the beginning: one line with the path, and nothing is left behind."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]
Mount = Callable[[str], Path]
TRAIN = ("train", "digits", "--model", "resnet8", "--threads", "1", "--out")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Return `mount(options)`, which mounts a small file system."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount_disk(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this user may not mount a small disk")
        return disk

    yield mount_disk
    subprocess.run(["umount", disk], capture_output=True, check=False)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ("size=4k", "run/recipe.json"),  # environment.json takes the only page
        ("nr_inodes=2", "run/.lock"),
        ("nr_inodes=3", "run/environment.json"),
        ("nr_inodes=1", "run"),
    ],
)
def test_a_run_that_cannot_begin_names_the_path_and_the_free_space(
    options: str, path: str, mount: Mount, reslearn: Run
) -> None:
    disk = mount(options)
    status, output, errors = reslearn(*TRAIN, disk / "run")
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert "no space left on device" in errors.lower()
    assert f"{disk / path}" in errors
    assert " MB free and " in errors and f" inodes in {disk})" in errors
    assert list(disk.iterdir()) == []


def test_a_study_names_the_run_that_cannot_begin(mount: Mount, reslearn: Run) -> None:
    disk = mount("nr_inodes=4")  # itself, the folder of the study, its lock, the folder of a run
    command = ("study", "--models", "resnet8", "--seeds", "1", "--recipe", "digits", "--out")
    status, output, _ = reslearn(*command, disk / "study")
    (line,) = [line for line in output.splitlines() if ": failed: " in line]
    assert status == 1
    assert "No space left on device: " in line and "/train.log (" in line
    assert [path.name for path in (disk / "study").iterdir()] == [".study.lock"]
