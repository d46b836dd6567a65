"""The command line: one file per command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, whose import would delay the handler of Ctrl-C
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from reslearn.cli.commands import app

__all__ = ["app", "main"]


def main() -> NoReturn:
    """Run the command line of this process. Ctrl-C ends it with status 130 from here on."""
    import sys

    try:
        from reslearn.cli import interrupt

        interrupt.handle_interrupts()
        from reslearn.cli import commands

        commands.main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:
        if not interrupt.was_interrupted():
            raise
        sys.exit(interrupt.STATUS)


def __getattr__(name: str) -> Any:
    """Load `app` on first use, so that `main` can handle Ctrl-C before the imports."""
    if name != "app":
        raise AttributeError(f"module 'reslearn.cli' has no attribute {name!r}")
    from reslearn.cli import commands

    return commands.app
