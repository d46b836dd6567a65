"""A refused command leaves no folder behind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reslearn.study import JobStatus, grid, run_study

Run = Callable[..., tuple[int, str, str]]
NETWORK = """
from torch import nn
def build():
    hidden = [layer for _ in range(8) for layer in (nn.Linear(16, 16), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), *hidden, nn.Linear(16, 10))
"""
STUDY = ("study", "--models", "resnet8", "--recipe", "digits", "--seeds", "1")


@pytest.mark.parametrize(
    "command",
    [
        ("train", "no-such-data"),
        ("train", "digits", "--set", "optimizer.lr=-1"),
        ("train", "digits", "--device", "cuda:99"),
        ("train", "digits", "--init", "no-such-weights.pth"),
        ("train", "cifar10", "--data-dir", "no-such-folder"),
        (*STUDY, "--engine", "no-such-engine"),
        (*STUDY, "--set", "model.num_classes=3"),
        ("paper", "fig1", "--data", "no-such-data"),
        ("paper", "claims", "--data", "digits", "--budget", "no-such-budget"),
        ("demo", "--jobs", "0"),
        ("report", "no-such-run"),
        ("diagnose", "net.py:build", "--data", "digits", "--patch", "--minutes", "0"),
        ("diagnose", "net.py:build", "--data", "digits", "--patch", "--steps", "1"),
    ],
    ids=lambda command: " ".join(command),
)
@pytest.mark.parametrize("out", [(), ("--out", "new/folder")], ids=["default", "out"])
def test_a_refused_command_leaves_no_folder(
    command: tuple[str, ...],
    out: tuple[str, ...],
    reslearn: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "net.py").write_text(NETWORK)
    status, output, errors = reslearn(*command, *out)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["net.py"]


def test_a_study_whose_engine_refuses_leaves_no_folder(tmp_path: Path) -> None:
    class Refusing:
        def run(self, jobs: object) -> list[JobStatus]:
            (tmp_path / "new" / "study" / "ray.log").touch()
            raise ValueError("no cluster")

    jobs = grid(models=["resnet8"], seeds=[0], recipe="digits", folder=tmp_path / "new" / "study")
    with pytest.raises(ValueError, match="no cluster"):
        run_study(jobs, tmp_path / "new" / "study", engine=Refusing())
    assert list(tmp_path.iterdir()) == []
