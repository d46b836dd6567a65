"""The weight files of a run, bundle and snapshots: their digests are part of its result."""

from pathlib import Path

from reslearn.runs.folder import RunFolder
from reslearn.runs.json_files import RunError, file_digests


def check_weights(run: RunFolder, path: Path) -> None:
    """Raise RunError unless `path` is the weight file that the complete run wrote.

    Runs that were committed without weights have no digests, and nothing is checked.
    """
    recorded = run.result.get("sha256")
    if recorded is not None and not file_digests([path], run.path).items() <= recorded.items():
        raise RunError(f"{path} is not the file that this run wrote: put the old file back")
