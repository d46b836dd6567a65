"""The errors that data can cause. Their messages are one line."""

from pathlib import Path
from typing import Any, BinaryIO


class DataError(ValueError):
    """Data are missing, truncated or in an unknown format, or do not support the requested use."""


class UnknownDataError(DataError):
    """A name is neither a registered source nor a folder."""


class PictureError(DataError):
    """One picture cannot be read.

    Attributes:
        path: None if the picture was not read from a path.
        reason: Why, without the name of the picture.
    """

    def __init__(self, source: Path | BinaryIO, reason: str) -> None:
        self.path = source if isinstance(source, Path) else None
        self.reason = reason
        name = str(source) if isinstance(source, Path) else getattr(source, "name", "the picture")
        super().__init__(f"{name} cannot be read ({reason}): remove or replace it")

    def __reduce__(self) -> tuple[Any, ...]:
        # An error is sent from a worker to the process that reports it.
        return _restore, (str(self), self.path, self.reason)


def _restore(message: str, path: Path | None, reason: str) -> PictureError:
    error = PictureError.__new__(PictureError)
    error.args = (message,)
    error.path, error.reason = path, reason
    return error
