"""The bar appears on a terminal, after a while, and never with RESLEARN_PROGRESS=off."""

import pytest

from reslearn.progress import progress_bar


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
    assert output_of_a_bar(capsys) == ""
