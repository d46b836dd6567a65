"""A decoded set kept as one file beside its source, which processes map into memory: decoded once, and held once a machine however many
runs read it. It is trusted only as far as its fingerprint, taken anew at every load, and made anew where its source has changed.
"""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors
import safetensors.torch

from reslearn.data.dataset import ImageData
from reslearn.data.images import Images, fingerprint

_FORMAT = "1"


def mapped(source: Sequence[Path], label: str, decode: Callable[[], ImageData]) -> ImageData:
    """What `decode` makes of the files `source`, from a file .reslearn-LABEL.safetensors beside the first of them where that is current.

    A folder that cannot be written costs each process its own decoding and memory, and nothing else. Not for sets with validation images.
    """
    place = source[0].parent / f".reslearn-{label}.safetensors"
    stamp = json.dumps(
        [_FORMAT, *((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in source)]
    )
    found = _read(place, stamp)
    if found is not None:
        return found
    dataset = decode()
    with contextlib.suppress(OSError, safetensors.SafetensorError):
        _write(place, stamp, dataset)
        return _read(place, stamp) or dataset  # this process too shares what it has just written
    return dataset


def _read(place: Path, stamp: str) -> ImageData | None:
    """The set, mapped; None where it is not there, of another source, or damaged."""
    try:
        with safetensors.safe_open(str(place), framework="pt") as file:
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
    except (OSError, safetensors.SafetensorError, KeyError, ValueError, AssertionError):
        return None
    return ImageData(
        name=name,
        classes=classes,
        train=parts[0],
        test=parts[1],
        fingerprint=metadata["fingerprint"],
    )


def _write(place: Path, stamp: str, dataset: ImageData) -> None:
    """Aside, then renamed: whoever reads finds the whole or nothing."""
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
    aside = place.with_name(f"{place.name}.{os.getpid()}.part")
    try:
        safetensors.torch.save_file(tensors, str(aside), metadata)
        aside.replace(place)
    finally:
        aside.unlink(missing_ok=True)
