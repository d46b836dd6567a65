"""Text from outside is shown, not obeyed: escapes, streams, and what rich draws."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reslearn.terminal import (
    SafeStream,
    joined_lines,
    print_lines,
    printable,
    printable_line,
    safe_console,
)

SOURCES = Path(__file__).parents[1] / "src" / "reslearn"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]8;;http://x\x07link", r"\x1b]8;;http://x\x07link"),
        ("a\rb\bc\x7f", r"a\rb\x08c\x7f"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("abc\u202egnp.exe\u2066", r"abc\u202egnp.exe\u2066"),
        ("caf\udce9", r"caf\udce9"),
        ("\u2028\ufeff\U000e0041", r"\u2028\ufeff\U000e0041"),
        ("é 漢字 ± → 👩\u200d🔬 tab\tline\n", "é 漢字 ± → 👩\u200d🔬 tab\tline\n"),
    ],
)
def test_a_character_that_a_terminal_obeys_becomes_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(codec=None)))
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert printable(printable(text)) == printable(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", printable(text))
    assert "\n" not in printable_line(text) and "\n" not in joined_lines(text)
    printable(text).encode()  # no half of a surrogate pair is left


def test_a_newline_in_a_name_makes_no_line_of_its_own() -> None:
    stream = io.StringIO()
    print_lines("runs/a\nreslearn: all is well", "second", file=stream)
    assert stream.getvalue() == "runs/a\\nreslearn: all is well\nsecond\n"
    assert joined_lines(" first\n  second\r\nthird\r") == "first second third\\r"


def test_a_stream_shows_letters_that_the_locale_lacks_as_escapes() -> None:
    raw = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    stream = SafeStream(raw)
    print("é 漢 \x1b", file=stream, flush=True)
    assert raw.buffer.getvalue() == "é \\u6f22 \\x1b\n".encode("latin-1")
    assert stream.encoding == "latin-1"


def test_a_table_is_drawn_with_escapes_of_the_right_width() -> None:
    from rich.table import Table
    from rich.text import Text

    stream = io.StringIO()
    table = Table("name", "number", title="title\x1b[2J")
    table.add_row("a\x1b[31m[red]:smile:", "1")
    table.add_row(Text("text\x1b[31m"), "2")
    console = safe_console(stream, width=60, force_terminal=True, color_system=None)
    console.print(table)
    drawn = stream.getvalue()
    assert "\x1b[31m" not in drawn and "\x1b[2J" not in drawn
    assert r"a\x1b[31m[red]:smile:" in drawn and r"text\x1b[31m" in drawn and r"title\x1b" in drawn
    # The title is centered, and its line has no border.
    assert len({len(line) for line in drawn.splitlines()}) == 1


def test_a_traceback_is_safe_too() -> None:
    code = (
        "from reslearn.terminal import make_streams_safe; make_streams_safe(); make_streams_safe();"
        "print('out\\x1b[31m'); raise RuntimeError('bug\\x1b[31m')"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert process.stdout == "out\\x1b[31m\n"
    assert "RuntimeError: bug\\x1b[31m\n" in process.stderr
    assert "\x1b" not in process.stderr


def test_only_this_module_opens_consoles() -> None:
    """A console of rich, or typer.echo, would print text from outside raw."""
    pattern = re.compile(r"\bConsole\(|typer\.echo|click\.echo|sys\.std(out|err)\.write")
    files = [path for path in SOURCES.rglob("*.py") if path.name != "terminal.py"]
    found = [str(path) for path in files if pattern.search(path.read_text(encoding="utf-8"))]
    assert found == []
