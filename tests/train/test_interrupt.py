"""Ctrl-C and SIGTERM write a checkpoint and print the command that resumes the run.

Also: the exit status, and only one process per run folder.
"""

import os
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from forked_command import start_command
from reslearn.data import DataError
from reslearn.recipes import Recipe
from reslearn.runs import RunError, RunFolder
from reslearn.train import Interrupted, Machine, run, train_recipe
from reslearn.train.loop import stop_on_signal

Small = Callable[..., Recipe]
Run = Callable[..., tuple[int, str, str]]


def test_printed_command_resumes_a_stopped_run(
    small: Small,
    small_flags: list[str],
    reslearn: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = [
        *small_flags,
        "--set",
        "schedule.duration=100000 steps",
        "--set",
        "train.checkpoint_every_seconds=1000",
    ]
    (tmp_path / "my data").mkdir()
    options = ["--out", "my run", "--data-dir", "my data", "--threads", "1"]
    errors = tmp_path / "errors.txt"
    process = start_command("train", *flags, *options, streams={2: errors}, folder=tmp_path)
    assert process.pid is not None
    folder = RunFolder(tmp_path / "my run")
    while not folder.metrics():
        assert process.is_alive(), errors.read_text()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGSTOP)  # it keeps its lock, and leaves this process its time
    with pytest.raises(RunError, match="in use by another process"):
        train_recipe(
            small("schedule.duration=100000 steps", "train.checkpoint_every_seconds=1000"),
            folder.path,
            resume=True,
        )
    os.kill(process.pid, signal.SIGTERM)
    os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    line = errors.read_text().strip()
    assert process.exitcode == 128 + signal.SIGTERM
    assert line.startswith("reslearn: stopped after step ")
    assert "\n" not in line
    (checkpoint,) = folder.checkpoints()
    assert f"stopped after step {int(checkpoint.stem[5:])};" in line

    printed = shlex.split(line.partition("continue with: ")[2])
    assert printed == ["reslearn", "train", "--resume", "--out", "my run", "--data-dir", "my data"]
    monkeypatch.chdir(tmp_path)
    num_lines = len(folder.metrics())

    def interrupt() -> None:
        while len(folder.metrics()) <= num_lines:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert reslearn(*printed[1:])[0] == 128 + signal.SIGINT
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


def test_an_error_after_the_folder_was_removed_does_not_advise_to_resume(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*arguments: object) -> None:
        shutil.rmtree(tmp_path / "run")
        raise DataError("photo.jpg cannot be read")

    monkeypatch.setattr(run, "train", unreadable)
    with pytest.raises(DataError, match="cannot be read") as caught:
        train_recipe(small(), tmp_path / "run", Machine(threads=1))
    assert "--resume" not in str(caught.value)
    assert str(caught.value).endswith(
        f"{tmp_path / 'run'} was removed meanwhile, so begin again in another --out"
    )
