"""The bar: on a terminal, after a while, never when silenced."""

import pytest

from reslearn.data.progress import progress


def shown(capsys: pytest.CaptureFixture[str], **options: float) -> str:
    with progress("reading things", 3, **options) as advance:
        for _ in range(3):
            advance(1)
    return capsys.readouterr().err


def test_bar_is_shown_on_a_terminal_only_late_and_not_when_silenced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert shown(capsys) == ""  # silenced for all tests
    monkeypatch.setenv("RESLEARN_PROGRESS", "on")
    assert "reading things" in shown(capsys)
    assert "3/3" in shown(capsys)
    assert shown(capsys, after_seconds=60.0) == ""
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    assert shown(capsys) == ""
