"""The real torchrun restarts a killed worker, which resumes; stopped workers write one checkpoint.

Slow, because torchrun and each worker import torch each time.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torchrun_processes
from torchrun_processes import on_processes

from reslearn.recipes import Recipe
from reslearn.runs import RunFolder

Small = Callable[..., Recipe]
Outcome = Callable[[Path], dict[str, Any]]
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def torchrun(arguments: list[str], *options: str) -> subprocess.Popen[str]:
    command = [*LAUNCHER, *options, "-m", "reslearn", "train", *arguments, "--device", "cpu"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint(folder: RunFolder, process: subprocess.Popen[str]) -> None:
    while not folder.checkpoints():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def worker(launcher: int, rank: int) -> int:
    """Return the process id of the worker with this rank."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return next(
        int(pid)
        for pid in children
        if f"LOCAL_RANK={rank}\0" in Path(f"/proc/{pid}/environ").read_text()
    )


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 0])
def test_killed_worker_is_restarted_and_resumes(
    rank: int, small: Small, small_flags: list[str], outcome: Outcome, tmp_path: Path
) -> None:
    longer = "schedule.duration=200 steps"
    folder = RunFolder(tmp_path / "killed")
    process = torchrun(
        [*small_flags, "--set", longer, "--out", str(folder.path), "--resume"],
        "--max-restarts",
        "1",
    )
    wait_for_checkpoint(folder, process)
    os.kill(worker(process.pid, rank), signal.SIGKILL)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert output.count("test error") == 1
    assert "Traceback" not in errors.replace(
        'Traceback (most recent call last):\n  File "<frozen runpy>"', ""
    )
    assert folder.result["resumed_at"]
    values = on_processes(2, torchrun_processes.train, small(longer), tmp_path / "unbroken")
    assert [kind for kind, _ in values] == ["value", "value"]
    expected, actual = outcome(tmp_path / "unbroken"), outcome(folder.path)
    # The recipes differ in how their overrides were written.
    assert {**actual, "recipe": ""} == {**expected, "recipe": ""}


@pytest.mark.slow
def test_stopped_processes_write_one_checkpoint_and_one_message(
    small_flags: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "my run"
    flags = [
        *small_flags,
        "--set",
        "schedule.duration=100000 steps",
        "--set",
        "evaluation.every=1000000 steps",
    ]
    process = torchrun([*flags, "--out", str(out)])
    wait_for_checkpoint(RunFolder(out), process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=600)
    (line,) = [line for line in errors.splitlines() if line.startswith("reslearn: ")]
    newest = RunFolder(out).checkpoints()[-1]
    assert line.startswith(f"reslearn: stopped after step {int(newest.stem[5:])}; continue with: ")
    printed = shlex.split(line.partition("continue with: ")[2])
    assert printed == [
        "torchrun",
        "--nproc-per-node",
        "2",
        "-m",
        "reslearn",
        "train",
        "--resume",
        "--out",
        str(out),
    ]

    process = torchrun(printed[6:])
    while (
        RunFolder(out).checkpoints()[-1].name <= newest.name
    ):  # it has resumed and handles signals
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert RunFolder(out).environment["resumed_at"] == [int(newest.stem[5:])]
    assert errors.count("reslearn: stopped after step ") == 1
