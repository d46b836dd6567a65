"""What a run was: the run folder, written and read. Knows nothing of torch."""

from reslearn.runs.folder import RunError, RunFolder, make_folder, plain, write_atomically
from reslearn.runs.shape import FORMAT

__all__ = ["FORMAT", "RunError", "RunFolder", "make_folder", "plain", "write_atomically"]
