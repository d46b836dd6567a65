"""Ctrl-C and SIGTERM write a checkpoint and print the command that resumes the run.

Also: the exit status, and only one process per run folder.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reslearn.recipes import Recipe
from reslearn.runs import RunError, RunFolder
from reslearn.train import Interrupted, Machine, run, train_recipe
from reslearn.train.loop import stop_on_signal

Small = Callable[..., Recipe]


def start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    """Start `reslearn ...` in a process of its own and wait until it writes metrics."""
    out = RunFolder(folder / "my run")
    before = len(out.metrics())
    process = subprocess.Popen(
        [sys.executable, "-m", "reslearn", *command], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    while len(out.metrics()) <= before:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    return process


def stop(process: subprocess.Popen[str], signal_number: int) -> tuple[int, str]:
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors.strip()


def test_printed_command_resumes_a_stopped_run(
    small: Small, small_flags: list[str], tmp_path: Path
) -> None:
    flags = [
        *small_flags,
        "--set",
        "schedule.duration=100000 steps",
        "--set",
        "train.checkpoint_every_seconds=1000",
    ]
    (tmp_path / "my data").mkdir()
    process = start(
        ["train", *flags, "--out", "my run", "--data-dir", "my data", "--threads", "1"], tmp_path
    )
    with pytest.raises(RunError, match="in use by another process"):
        train_recipe(
            small("schedule.duration=100000 steps", "train.checkpoint_every_seconds=1000"),
            tmp_path / "my run",
            resume=True,
        )
    status, line = stop(process, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert line.startswith("reslearn: stopped after step ")
    assert "\n" not in line
    (checkpoint,) = RunFolder(tmp_path / "my run").checkpoints()
    assert f"stopped after step {int(checkpoint.stem[5:])};" in line

    printed = shlex.split(line.partition("continue with: ")[2])
    assert printed == ["reslearn", "train", "--resume", "--out", "my run", "--data-dir", "my data"]
    process = start(printed[1:], tmp_path)
    status, line = stop(process, signal.SIGINT)
    assert status == 128 + signal.SIGINT
    folder = RunFolder.open(tmp_path / "my run")
    assert folder.environment["resumed_at"] == [int(checkpoint.stem[5:])]
    steps = [record["step"] for record in folder.metrics("train")]
    assert steps == list(range(3, steps[-1] + 1, 3))


def test_stop_during_the_final_evaluation_loses_nothing(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send_signal(*arguments: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        pytest.fail("the signal did not stop the run at once")

    with monkeypatch.context() as patch:
        patch.setattr(run, "recompute_batch_norm", send_signal)
        with pytest.raises(
            Interrupted,
            match=r"stopped after step 11; continue with: reslearn train --resume --out ",
        ) as interrupted:
            train_recipe(small(), tmp_path, Machine(threads=1))
    assert interrupted.value.exit_status == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert train_recipe(small(), tmp_path, Machine(threads=1), resume=True)["resumed_at"] == [11]


def test_second_signal_has_its_usual_effect() -> None:
    with stop_on_signal() as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request.signal_number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
