"""What commands that take long tell: what they are at, on the error stream; and what they found, as a file beside the page and as JSON."""

import json
import os
from pathlib import Path
from typing import Any


def aloud(text: str) -> None:
    """A line of what is going on, unless RESLEARN_PROGRESS=off."""
    if os.environ.get("RESLEARN_PROGRESS", "on") != "off":
        from rich.console import Console

        Console(stderr=True, highlight=False).print(
            text, style="bold", markup=False, soft_wrap=True
        )


def keep(found: dict[str, Any], path: Path) -> None:
    """Write what was found to `path`, whole or not at all."""
    from reslearn.runs import write_atomically

    write_atomically(
        path, lambda file: file.write(json.dumps(found, indent=1, allow_nan=False).encode())
    )
