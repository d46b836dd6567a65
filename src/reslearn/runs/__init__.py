"""What a run was: the run folder, written and read. Knows nothing of torch."""

from reslearn.runs.folder import FORMAT, RunError, RunFolder, write_atomically

__all__ = ["FORMAT", "RunError", "RunFolder", "write_atomically"]
