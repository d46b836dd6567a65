"""Cache a decoded data set as one file beside its source, which processes map into memory.

The set is decoded once, and a machine holds it in memory once, no matter how many runs read it.
The fingerprint is computed again at every load, so a damaged file is never used. A file whose
source has changed is replaced.
"""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors
import safetensors.torch

from reslearn.data.images import ImageData, Images, fingerprint

_FORMAT = "1"


def load_cached(source: Sequence[Path], label: str, decode: Callable[[], ImageData]) -> ImageData:
    """Return what `decode` makes of the files `source`, from the cache if it is current.

    The cache is the file .reslearn-LABEL.safetensors beside the first source file. In a folder that
    cannot be written, each process decodes and holds the set by itself. Sets with validation images
    are not supported.
    """
    path = source[0].parent / f".reslearn-{label}.safetensors"
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in source]
    stamp = json.dumps([_FORMAT, *stats])
    cached = _read(path, stamp)
    if cached is not None:
        return cached
    dataset = decode()
    with contextlib.suppress(OSError, safetensors.SafetensorError):
        _write(path, stamp, dataset)
        # Read it back, so that this process shares the memory too.
        return _read(path, stamp) or dataset
    return dataset


def _read(path: Path, stamp: str) -> ImageData | None:
    """Map the set, or return None if the file is missing, damaged or of another source."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("stamp") != stamp:
                return None
            parts = [
                Images(file.get_tensor(f"{part}.pixels"), file.get_tensor(f"{part}.labels"))
                for part in ("train", "test")
            ]
        if fingerprint(parts) != metadata["fingerprint"]:
            return None
        name, classes = metadata["name"], tuple(json.loads(metadata["classes"]))
    except (
        OSError,
        safetensors.SafetensorError,
        KeyError,
        ValueError,
        AssertionError,
        RecursionError,
    ):
        return None
    return ImageData(
        name=name,
        classes=classes,
        train=parts[0],
        test=parts[1],
        fingerprint=metadata["fingerprint"],
    )


def _write(path: Path, stamp: str, dataset: ImageData) -> None:
    """Write beside `path` and rename, so that a reader finds the whole file or none."""
    train, test = dataset.train, dataset.test
    assert dataset.validation is None and isinstance(train, Images) and isinstance(test, Images)
    tensors = {
        "train.pixels": train.pixels,
        "train.labels": train.labels,
        "test.pixels": test.pixels,
        "test.labels": test.labels,
    }
    metadata = {
        "stamp": stamp,
        "name": dataset.name,
        "classes": json.dumps(dataset.classes),
        "fingerprint": dataset.fingerprint,
    }
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        safetensors.torch.save_file(tensors, str(temporary), metadata)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
