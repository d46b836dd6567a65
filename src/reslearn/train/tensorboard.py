"""TensorBoard event files beside metrics.jsonl, for `reslearn train --tensorboard`: an optional extra, and its neutral stand-in."""

from collections.abc import Mapping
from pathlib import Path


class NoEvents:
    """Nobody asked for event files."""

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class Events:
    """Writes what metrics.jsonl gets as scalars named train/loss, test/top1_error_pct, ... into the run folder.

    A resumed run opens a file of its own that tells TensorBoard to forget what came after `resumed_at_step`.
    """

    def __init__(self, folder: Path, *, resumed_at_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(folder), purge_step=resumed_at_step + 1 if resumed_at_step else None
        )

    def add(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """One scalar a value."""
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Write out what is still in memory."""
        self._writer.close()


def require() -> None:
    """Raise ValueError, before anything is done, where TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise ValueError(
            "--tensorboard needs an extra that is not installed: pip install 'reslearn[tensorboard]'"
        ) from None
