"""Records of examined files in temporary files, not in memory: about 480 bytes per picture on disk.

The temporary files have no name, so nothing stays behind, even if the process is killed.
"""

from __future__ import annotations

import tempfile
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from reslearn.survey.examine import RECORD, TINY_PX, Examination

MAX_REASONS = 10_000


class Records:
    """Appends examinations, and reads them back as arrays that stay on disk. A context manager.

    Attributes:
        reasons: Why a file cannot be read, by row; at most `MAX_REASONS`.
    """

    def __init__(self) -> None:
        self._records: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by __exit__)
        self._tiny: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._num_rows = 0
        self.reasons: dict[int, str] = {}

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._records.close()
        self._tiny.close()

    def __len__(self) -> int:
        return self._num_rows

    def append(self, examination: Examination) -> None:
        """Append the records of N files."""
        self._records.write(examination.records.tobytes())
        self._tiny.write(examination.tiny.tobytes())
        for index, reason in examination.reasons.items():
            if len(self.reasons) < MAX_REASONS:
                self.reasons[self._num_rows + index] = reason
        self._num_rows += len(examination.records)

    def table(self) -> npt.NDArray[np.void]:
        """Return all records, `RECORD` [N]."""
        return _read(self._records, RECORD, (self._num_rows,))

    def tiny(self) -> npt.NDArray[np.uint8]:
        """Return all thumbnails, uint8 [N, TINY_PX, TINY_PX, 3]."""
        return _read(self._tiny, np.dtype(np.uint8), (self._num_rows, TINY_PX, TINY_PX, 3))


def _read(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if not shape[0]:
        return np.zeros(shape, dtype)
    file.flush()
    return np.memmap(file, dtype, "r", shape=shape)
