"""Ctrl-C: an exception while a command works, and an immediate end at any other moment.

An exception in the middle of an import cannot be trusted: libraries convert it into other errors,
and torch fails with a RecursionError. Before and after the work of a command there is nothing to
clean up, so the process ends at once with status 130. SIGTERM needs no handler: its default is the
same, with status 143.
"""

# The C module behind `signal`. `signal` itself imports enum, and Ctrl-C during that import would
# still be a traceback.
import _signal as signal  # type: ignore[import-not-found]
import os

TYPE_CHECKING = False  # as in `typing`, whose import would delay the handler
if TYPE_CHECKING:
    from types import FrameType

STATUS = 128 + signal.SIGINT
# These files of the room start and end a command. All others work for one.
_NOT_COMMANDS = {"reslearn.cli", "reslearn.cli.commands", "reslearn.cli.help", __name__}
_received = False


def handle_interrupts() -> None:
    """Install the handler for the rest of this process, and admit signals that `execve` held."""
    # A shell starts background jobs with Ctrl-C ignored, and that must remain.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end_or_raise)
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def was_interrupted() -> bool:
    """Return whether a KeyboardInterrupt was raised in a command, which a library may convert."""
    return _received


def execve(path: str, arguments: list[str], environment: dict[str, str]) -> None:
    """Replace this process by another start of the command line.

    Ctrl-C waits until `handle_interrupts` of the new start, since an interpreter that has just
    started answers with a traceback. Blocked and pending signals survive the replacement.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        os.execve(path, arguments, environment)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end_or_raise(number: int, frame: "FrameType | None") -> None:
    global _received
    if not _is_working(frame):
        os._exit(STATUS)
    _received = True
    raise KeyboardInterrupt


def _is_working(frame: "FrameType | None") -> bool:
    """Return whether a command has begun, and does not merely import what it needs."""
    caller_is_command = False
    is_working = False
    for module, file in reversed(_stack(frame)):
        is_command = module.startswith("reslearn.cli.") and module not in _NOT_COMMANDS
        if is_command:
            is_working = True
        elif caller_is_command:
            return not file.startswith("<frozen importlib")
        caller_is_command = is_command
    return is_working


def _stack(frame: "FrameType | None") -> list[tuple[str, str]]:
    """Return module and file of each function that runs, the innermost first."""
    stack = []
    while frame is not None:
        # The body of a module runs while it is imported, before its command begins.
        if frame.f_code.co_name != "<module>":
            stack.append((str(frame.f_globals.get("__name__")), frame.f_code.co_filename))
        frame = frame.f_back
    return stack
