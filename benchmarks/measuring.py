"""What several benchmarks measure alike: processor time of a process, and ratios round by round."""

import os
import statistics
from collections.abc import Iterable
from pathlib import Path


def process_seconds(process_id: int) -> float:
    """Return the processor time of all threads of a process (proc(5)).

    Raises:
        OSError: If there is no such process, or the system does not report it.
    """
    fields = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8").rpartition(") ")[2]
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def median_ratio(values: Iterable[float], others: Iterable[float]) -> float:
    """Return the median of value / other over the rounds."""
    return statistics.median(value / other for value, other in zip(values, others, strict=True))
