"""Convert the user's data to tensors of inputs and targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from reslearn import data as data_room
from reslearn.diagnose.user_code import DiagnosisError, describe, describe_type

MIN_EXAMPLES = 20


def load_data(
    data: Any, *, size_px: int | None = None, data_dir: Path | None = None
) -> tuple[Tensor, Tensor]:
    """Return inputs [N, ...] and targets, which are int64 [N] (classes) or float [N, ...].

    Args:
        data: A pair (inputs, targets), a function that returns one, a `TensorDataset`, a
            `DataLoader`, the name of a data set, or a folder of images.
        size_px: Side of the images of a folder, in pixels.
        data_dir: Folder in which named data sets are stored.

    Raises:
        DiagnosisError: If shapes or types do not fit; the message is one line.
        DataError: If a named data set is not there.
    """
    if callable(data):
        try:
            data = data()
        except (Exception, SystemExit) as error:
            raise DiagnosisError(f"the data function failed: {describe(error)}") from None
    if isinstance(data, str | Path):
        dataset = data_room.load(data, data_dir=data_dir, size_px=size_px)
        images = dataset.train
        assert isinstance(images, data_room.Images)  # the data set is not streamed
        return data_room.Preprocess.fit(images)(images.pixels), images.labels
    if isinstance(data, TensorDataset):
        data = data.tensors
    elif isinstance(data, DataLoader):
        data = [torch.cat(parts) for parts in zip(*data, strict=True)]
    if not (isinstance(data, tuple | list) and len(data) == 2):
        raise DiagnosisError(
            f"data are {describe_type(data)}: give a pair (inputs, targets), a name or a folder"
        )
    inputs, targets = _as_tensor(data[0], "inputs"), _as_tensor(data[1], "targets")
    if len(inputs) != len(targets):
        raise DiagnosisError(
            f"there are {len(inputs)} inputs and {len(targets)} targets: give one target per input"
        )
    if len(inputs) < MIN_EXAMPLES:
        raise DiagnosisError(f"there are {len(inputs)} examples: give at least {MIN_EXAMPLES}")
    if inputs.is_floating_point() or inputs.dtype == torch.uint8:
        inputs = inputs.float()
    return inputs, _checked_targets(targets)


def _as_tensor(values: Any, role: str) -> Tensor:
    try:
        tensor = torch.as_tensor(values).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DiagnosisError(f"{role} cannot be converted to a tensor: {describe(error)}") from None
    if tensor.ndim == 0:
        raise DiagnosisError(f"{role} are a single number: give one row per example")
    return tensor


def _checked_targets(targets: Tensor) -> Tensor:
    if targets.is_floating_point():
        if not torch.isfinite(targets).all():
            raise DiagnosisError("targets are not finite: remove NaN and infinity")
        return targets.float()
    if targets.ndim != 1:
        shape = tuple(targets.shape)
        raise DiagnosisError(
            f"integer targets have shape {shape}: give classes 0, 1, ... of shape [N]"
        )
    if int(targets.min()) < 0:
        raise DiagnosisError(
            f"integer targets start at {int(targets.min())}: number the classes 0, 1, ..."
        )
    return targets.long()
