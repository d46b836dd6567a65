"""Results of `reslearn analyze` in a run folder: analysis/NAME.json.

A checksum binds each to the result of its run.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reslearn.runs.folder import RunFolder
from reslearn.runs.json_files import RunError, digest, to_json_value


def write_analysis(run: RunFolder, name: str, record: Mapping[str, Any]) -> Path:
    """Write analysis/NAME.json. Numbers that are not finite become null.

    Returns:
        The path of the file.
    """
    content = to_json_value(record)
    checksum = digest(run.result["checksum"], name, content)
    run.write_json(f"analysis/{name}.json", {**content, "checksum": checksum})
    return _path(run, name)


def read_analysis(run: RunFolder, name: str) -> dict[str, Any] | None:
    """Return the content of analysis/NAME.json, or None if it does not exist.

    Raises:
        RunError: If the file cannot be read, was changed, or belongs to another run.
    """
    return _read(run, name, run.result["checksum"]) if _path(run, name).is_file() else None


def read_analyses(run: RunFolder) -> dict[str, dict[str, Any]]:
    """Return the content of all analyses by name.

    Raises:
        RunError: As for `read_analysis`.
    """
    names = sorted(path.stem for path in (run.path / "analysis").glob("*.json"))
    # The result reads the whole run, so it is read only once.
    checksum = run.result["checksum"] if names else ""
    return {name: _read(run, name, checksum) for name in names}


def _path(run: RunFolder, name: str) -> Path:
    return run.path / "analysis" / f"{name}.json"


def _read(run: RunFolder, name: str, run_checksum: str) -> dict[str, Any]:
    record = run.read_json(f"analysis/{name}.json")
    if record.get("checksum") != digest(run_checksum, name, record):
        raise RunError(
            f"{_path(run, name)} was changed after it was written, or is of another run: "
            "remove it, and analyze the run again"
        )
    return record
