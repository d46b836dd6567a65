"""Where and with what a run was made: an allow-list, never the process's environment."""

import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import reslearn
from reslearn.data import ImageData
from reslearn.runs import FORMAT
from reslearn.train.numerics import Numerics


def describe(numerics: Numerics, dataset: ImageData, command: Sequence[str]) -> dict[str, Any]:
    """The content of environment.json."""
    return {
        "format": FORMAT,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "reslearn": reslearn.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "device": torch.cuda.get_device_name(numerics.device)
        if numerics.device.startswith("cuda")
        else "cpu",
        "commit": _commit(),
        "command": list(command),
        "numerics": numerics.to_dict(),
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.classes),
        },
    }


def _processor() -> str:
    if sys.platform == "linux":
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _commit() -> str | None:
    """The commit of the source tree that runs, where it is one; "+changes" where files differ from it."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        git(
            "ls-files", "--error-unmatch", Path(__file__).name
        )  # else we are installed somewhere below a repository of somebody else
        return git("rev-parse", "--short=12", "HEAD") + (
            "+changes" if git("status", "--porcelain", "--untracked-files=no", ".") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None
