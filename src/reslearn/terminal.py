"""Text from outside never reaches a terminal raw; every room may import this module.

Names of files, folders, classes and tensors may hold escape sequences, and so may values of a
recipe. They move the cursor, change colors, or disguise a line. `printable` shows them instead. The
command line sends everything through it: `make_streams_safe` cleans printed text, and
`safe_console` cleans the drawings of rich.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# Control characters except newline and tab, halves of surrogate pairs (which stand for bytes that
# are no UTF-8), other line ends, marks that change the direction of text, and invisible tags.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    r"""Return `text` with escapes such as \x1b for characters that a terminal would obey.

    Newlines, tabs and all letters stay. A second call changes nothing.
    """
    return _UNSAFE.sub(lambda match: repr(match[0])[1:-1], text)


def printable_line(text: str) -> str:
    r"""Return `text` as one printable line: a newline in a name becomes \n."""
    return printable(text).replace("\n", r"\n")


def joined_lines(text: str) -> str:
    """Return a message of several lines as one printable line."""
    return printable(re.sub(r"(?:\r?\n|[ \t])+", " ", text).strip(" "))


def print_lines(*lines: object, file: TextIO | None = None) -> None:
    """Print each argument as one line. Text of several lines needs `print`."""
    for line in lines:
        print(printable_line(str(line)), file=file or sys.stdout, flush=True)


def make_streams_safe() -> None:
    """Make everything that this process prints printable, tracebacks and warnings included."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, SafeStream):
            setattr(sys, name, SafeStream(stream))


class SafeStream:
    """A text stream that writes printable text, and otherwise is the stream that it wraps.

    Attributes:
        raw: The wrapped stream.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        text_written = printable(text)
        try:
            self.raw.write(text_written)
        except UnicodeEncodeError:  # the locale of the user lacks a letter
            encoding = self.raw.encoding
            self.raw.write(text_written.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def raw_stream(stream: TextIO) -> TextIO:
    """Return the stream for text that is known to be safe, such as the colors that rich writes."""
    return stream.raw if isinstance(stream, SafeStream) else stream


def safe_console(stream: TextIO | None = None, **options: Any) -> Console:
    """Return a rich console that prints text unchanged: no markup, no emoji names, nothing raw.

    Args:
        stream: Where to print; default: the standard output.
        options: Arguments of rich's Console.
    """
    defaults = {"highlight": False, "markup": False, "emoji": False}
    console_class = _console_class()
    return console_class(file=raw_stream(stream or sys.stdout), **{**defaults, **options})


@functools.cache
def _console_class() -> type[Console]:
    from rich.console import Console
    from rich.segment import Segment

    class SafeConsole(Console):
        """Cleans text before it is measured, and once more all text that is drawn."""

        def render_str(self, text: str, **options: Any) -> Any:
            return super().render_str(printable(text), **options)

        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else _clean(segment)

    def _clean(segment: Segment) -> Segment:
        style = segment.style
        if style is not None and style.link:
            style = style.update_link(None)
        return Segment(printable(segment.text), style)

    return SafeConsole
