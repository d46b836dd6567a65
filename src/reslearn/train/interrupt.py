"""Ctrl-C and SIGTERM as a wish that the loop grants after the step at hand, so that nothing is lost. A second one ends at once."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Interrupted(Exception):
    """The run stopped on request; the text says how it goes on, `exit_status` is the shell's for the signal."""

    def __init__(self, text: str, *, signal_number: int) -> None:
        super().__init__(text)
        self.signal_number = signal_number
        self.exit_status = 128 + signal_number


class Request:
    """Which signal asked for a stop, if one did. With `at_once` set, a signal raises Interrupted where the process is."""

    signal_number: int | None = None
    at_once: bool = False


@contextlib.contextmanager
def on_request() -> Iterator[Request]:
    """Turn the first SIGINT or SIGTERM into a `Request`; a second one takes its usual course. Handlers are put back at the end."""
    request = Request()

    def handle(number: int, frame: FrameType | None) -> None:
        request.signal_number = number
        for each, before in old.items():
            signal.signal(each, before)
        if request.at_once:
            raise Interrupted("stopped on request", signal_number=number)

    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in old:
            signal.signal(number, handle)
    except ValueError:  # not the main thread: signals are somebody else's business
        old = {}
    try:
        yield request
    finally:
        for number, before in old.items():
            signal.signal(number, before)
