"""The bar appears on a terminal, after a while, and never with RESLEARN_PROGRESS=off."""

import pytest

from reslearn.progress import ProgressDisplay, progress_bar, track


def output_of_a_bar(capsys: pytest.CaptureFixture[str], **options: float) -> str:
    with progress_bar("reading things", 3, **options) as advance:
        for _ in range(3):
            advance(1)
    return capsys.readouterr().err


def test_bar_is_shown_on_a_terminal_only_late_and_not_when_silenced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert output_of_a_bar(capsys) == ""  # silenced for all tests
    monkeypatch.setenv("RESLEARN_PROGRESS", "on")
    assert "reading things" in output_of_a_bar(capsys)
    assert "3/3" in output_of_a_bar(capsys)
    assert output_of_a_bar(capsys, after_seconds=60.0) == ""
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    assert output_of_a_bar(capsys) == ""  # short work
    monkeypatch.setattr("reslearn.progress.SECONDS_PER_LINE", 0.0)
    lines = [f"reading things: {number} of 3\n" for number in (1, 2, 3)]
    assert output_of_a_bar(capsys) == "".join(lines)


def test_work_within_a_display_is_a_part_of_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def show() -> str:
        with ProgressDisplay() as display:
            bar = display.add_bar("training", 10)
            display.update(bar, 5, "5 of 10", "loss 1.5")
            batches = list(track([([0] * 1500,), ([0] * 500,)], "evaluating", 2000))
            assert [len(batch[0]) for batch in batches] == [1500, 500]
            with progress_bar("reading", None, in_bytes=True) as advance:
                advance(1_250_000)
                display.draw()
        return capsys.readouterr().err

    monkeypatch.setenv("RESLEARN_PROGRESS", "on")
    monkeypatch.setattr("reslearn.progress.SECONDS_PER_LINE", 0.0)
    assert show() == "evaluating: 1,500 of 2,000\nevaluating: 2,000 of 2,000\nreading: 1 MB\n"
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    shown = show()
    assert "evaluating" not in shown  # it took less than two seconds
    assert "reading " in shown and "1 MB" in shown
    # The work has ended, and its bar with it.
    *_, last, below = shown.replace("\x1b[?25h", "").rstrip().splitlines()
    assert "training" in last and "5 of 10" in last
    assert "loss 1.5" in below
    monkeypatch.setenv("RESLEARN_PROGRESS", "off")
    assert show() == ""
