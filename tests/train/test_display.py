"""The display of a training: a bar on a terminal, lines elsewhere, nothing if switched off."""

import contextlib
import os
import pty
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from reslearn.progress import ProgressDisplay
from reslearn.recipes import Recipe
from reslearn.train import Machine, train_recipe
from reslearn.train.display import TrainingDisplay

Small = Callable[..., Recipe]

# A folder of images may be called anything.
ODD = "resnet20 on [my] {data}"


class Clock:
    """A clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr("reslearn.train.display.time", clock)

    def train(
        self,
        display: TrainingDisplay,
        steps: range,
        *,
        seconds: float,
        first: float | None = None,
        evaluate: tuple[int, float] = (10**9, 0.0),
    ) -> None:
        """Make steps of so many seconds; each `evaluate[0]`th is followed by an evaluation."""
        for step in steps:
            self.now += first if first is not None and step == steps[0] else seconds
            if step % 5 == 0:
                display.read(loss=1.25, top1_error_pct=40.0)
            display.step(step)
            if step % evaluate[0] == 0:
                self.now += evaluate[1]
                display.evaluated("validation", 40.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setenv("RESLEARN_PROGRESS", "on")
    return Clock(monkeypatch)


def new_display(progress: ProgressDisplay, **options: int) -> TrainingDisplay:
    return TrainingDisplay(
        progress, title=ODD, num_steps=20, images_per_step=32, steps_per_epoch=10, **options
    )


def test_lines_without_a_terminal(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay() as progress:
        clock.train(new_display(progress), range(1, 21), seconds=4.0, first=30.0)
        progress.print("evaluating [now]")
    output = capsys.readouterr()
    assert output.out == ""
    metrics = "  loss 1.2500  error 40.00 %"
    assert output.err.splitlines() == [
        # The first step compiles, so it tells nothing about the speed.
        f"{ODD}  step 1/20  epoch 0.10",
        # A line does not wait for a reading.
        f"{ODD}  step 4/20  epoch 0.40  8 images/s  0:01:04 left",
        f"{ODD}  step 7/20  epoch 0.70{metrics}  8 images/s  0:00:52 left",
        f"{ODD}  step 10/20  epoch 1.00{metrics}  8 images/s  0:00:40 left",
        f"{ODD}  step 13/20  epoch 1.30{metrics}  8 images/s  0:00:28 left",
        f"{ODD}  step 16/20  epoch 1.60{metrics}  8 images/s  0:00:16 left",
        f"{ODD}  step 19/20  epoch 1.90{metrics}  8 images/s  0:00:04 left",
        f"{ODD}  step 20/20  epoch 2.00{metrics}  8 images/s",
        "evaluating [now]",
    ]


def test_fast_steps_print_one_line_per_ten_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressDisplay() as progress:
        display = TrainingDisplay(
            progress, title="net", num_steps=2500, images_per_step=32, steps_per_epoch=10
        )
        clock.train(display, range(1, 2501), seconds=0.01)
    steps = [int(number) for number in re.findall(r"step (\d+)/", capsys.readouterr().err)]
    assert steps == [pytest.approx(1000, abs=101), pytest.approx(2000, abs=201), 2500]


def test_time_left_after_resume_is_that_of_this_session(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressDisplay() as progress:
        display = new_display(progress, first_step=14)
        clock.train(display, range(15, 19), seconds=4.0, first=3.0)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "step 17/20  epoch 1.70  loss 1.2500  error 40.00 %  8 images/s  0:00:12 left"
    )


def test_evaluations_count_in_the_time_left_but_not_in_the_speed(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressDisplay() as progress:
        clock.train(new_display(progress), range(1, 16), seconds=4.0, evaluate=(2, 6.0))
    last = capsys.readouterr().err.splitlines()[-1]
    assert "step 15/20" in last
    # 5 steps of 4 s, and 7 evaluations of 6 s in the 14 steps after the first.
    assert last.endswith("  8 images/s  0:00:35 left")


def test_a_terminal_shows_the_compilation_until_the_first_step(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with ProgressDisplay(draws_in_thread=False) as progress:
        display = new_display(progress, first_step=7, is_compiled=True)
        progress.draw()
        assert "step 7/20  compiling" in capsys.readouterr().err
        clock.train(display, range(8, 9), seconds=40.0)
        progress.draw()
        shown = capsys.readouterr().err
    assert "step 8/20  epoch 0.80" in shown
    assert "compiling" not in shown


def test_nothing_if_switched_off(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RESLEARN_PROGRESS", "off")
    monkeypatch.setenv("FORCE_COLOR", "1")
    with ProgressDisplay() as progress:
        clock.train(new_display(progress), range(1, 21), seconds=4.0)
        progress.print("evaluating [now]")
    assert capsys.readouterr() == ("", "")


def test_training_shows_steps_and_evaluations(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RESLEARN_PROGRESS", "on")
    for module in ("progress", "train.display"):
        monkeypatch.setattr(f"reslearn.{module}.SECONDS_PER_LINE", 0.0)
    monkeypatch.setattr("reslearn.train.display._SECONDS_PER_TICK", 0.0)
    train_recipe(small("data.validation_images=60"), tmp_path, Machine(threads=1))
    lines = capsys.readouterr().err.splitlines()
    steps = [line for line in lines if line.startswith("resnet8 on digits  step ")]
    assert len(steps) == 11
    assert " loss " not in steps[2]
    assert re.search(r"step 4/11  epoch 0\.53  loss .* error .* images/s  0:0.* left$", steps[3])
    for line in (
        "evaluating on validation images: 60 of 60",
        "evaluating on training images: 150 of 150",
        "recomputing batch-norm statistics: 60 of 60",
        "evaluating on test images: 360 of 360",
    ):
        assert line in lines
    # The first evaluation follows step 4.
    assert lines.index("evaluating on validation images: 60 of 60") == lines.index(steps[3]) + 1


def test_training_on_a_terminal_of_80_columns(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RESLEARN_PROGRESS": "on", "TERM": "xterm", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("reslearn.train.display._SECONDS_PER_TICK", 0.0)
    shown = output_on_a_terminal(
        lambda: train_recipe(small(), tmp_path, Machine(threads=1)), monkeypatch
    )
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).splitlines()
    assert max(map(len, lines)) <= 80
    bars = [line for line in lines if line.startswith("resnet8 on digits ━")]
    states = [line for line in lines if line.startswith("step ")]
    assert any(re.search(r"━ +\d+% 0:\d\d:\d\d 0:\d\d:\d\d left", line) for line in bars)
    assert any(re.fullmatch(r"step 11/11  epoch 1\.47  loss .* images/s", line) for line in states)
    assert not any("…" in line for line in lines)


def output_on_a_terminal(act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what `act` writes to an error stream that is a terminal."""
    controller, terminal = pty.openpty()
    parts = []

    def read() -> None:
        # Linux reports the end as an error.
        with contextlib.suppress(OSError):
            while part := os.read(controller, 65_536):
                parts.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(terminal, "w") as stream, monkeypatch.context() as context:
        context.setattr(sys, "stderr", stream)
        act()
    reader.join()
    os.close(controller)
    return b"".join(parts).decode()
