"""The run folder, written by training and read by everything else. It needs no torch."""

from reslearn.runs.folder import RunFolder
from reslearn.runs.json_files import RunError, make_folder, to_json_value, write_atomically
from reslearn.runs.shape import FORMAT

__all__ = ["FORMAT", "RunError", "RunFolder", "make_folder", "to_json_value", "write_atomically"]
