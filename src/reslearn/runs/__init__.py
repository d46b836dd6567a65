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
from reslearn.runs.lock import FolderLostError, open_lock_file
from reslearn.runs.shape import FORMAT
from reslearn.runs.weights import check_weights

__all__ = [
    "FORMAT",
    "DamagedCheckpointError",
    "FolderLostError",
    "RunError",
    "RunFolder",
    "check_weights",
    "disk_state",
    "make_folder",
    "open_lock_file",
    "read_analyses",
    "read_analysis",
    "removed_on_error",
    "to_json_value",
    "write_analysis",
    "write_atomically",
]
