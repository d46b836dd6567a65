"""The display of a training: a bar on a terminal, lines elsewhere, nothing if switched off."""

import pytest

from reslearn.progress import ProgressDisplay
from reslearn.train.logging import TrainingDisplay

# A folder of images may be called anything.
ODD = "resnet20 on [my] {data}"


def show(monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with ProgressDisplay() as progress:
        display = TrainingDisplay(
            progress, title=ODD, num_steps=20, images_per_step=32, steps_per_epoch=10
        )
        for step in (5, 10, 20):
            display.show(step=step, loss=1.25, top1_error_pct=40.0)
        progress.print("evaluating [now]")


def test_lines_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show(monkeypatch, RESLEARN_PROGRESS="on")
    output = capsys.readouterr()
    assert output.out == ""
    last, message = output.err.splitlines()
    assert last.startswith(f"{ODD}  step 20/20  epoch 2.00  loss 1.2500  error 40.00 %  ")
    assert last.endswith(" images/s")
    assert message == "evaluating [now]"


def test_lines_show_the_remaining_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("reslearn.train.logging._SECONDS_PER_LINE", 0.0)
    show(monkeypatch, RESLEARN_PROGRESS="on")
    first, second, last, _ = capsys.readouterr().err.splitlines()
    assert "images/s" not in first  # compilation may be part of it
    assert second.endswith(" images/s  0:00:00 left")
    assert "left" not in last


def test_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show(monkeypatch, RESLEARN_PROGRESS="on", FORCE_COLOR="1", TERM="xterm", COLUMNS="200")
    shown = capsys.readouterr().err
    for part in (ODD, "100%", "loss 1.2500", "error 40.00 %", "images/s", "evaluating [now]"):
        assert part in shown


def test_nothing_if_switched_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    show(monkeypatch, RESLEARN_PROGRESS="off", FORCE_COLOR="1")
    assert capsys.readouterr() == ("", "")
