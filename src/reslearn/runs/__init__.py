"""The run folder, written by training and read by everything else. It needs no torch."""

from reslearn.runs.analyses import read_analyses, read_analysis, write_analysis
from reslearn.runs.folder import DamagedCheckpointError, RunFolder
from reslearn.runs.json_files import (
    RunError,
    disk_state,
    make_folder,
    removed_on_error,
    to_json_value,
    write_atomically,
)
from reslearn.runs.lock import FolderLostError
from reslearn.runs.shape import FORMAT

__all__ = [
    "FORMAT",
    "DamagedCheckpointError",
    "FolderLostError",
    "RunError",
    "RunFolder",
    "disk_state",
    "make_folder",
    "read_analyses",
    "read_analysis",
    "removed_on_error",
    "to_json_value",
    "write_analysis",
    "write_atomically",
]
