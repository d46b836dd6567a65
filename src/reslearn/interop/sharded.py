"""Weights that `save_pretrained` split into several files, with an index of them.

model.safetensors.index.json and pytorch_model.bin.index.json hold a "weight_map", which names the
file of each tensor. The files lie beside the index.
"""

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

from reslearn.interop.stored import (
    Checkpoint,
    StoredTensor,
    WeightsError,
    check_file_size,
    first_line,
)

INDEX_SUFFIX = ".index.json"
# resnet1202 has 7,200 tensors, so its index has 0.7 MB.
_LARGEST_INDEX_BYTES = 16 << 20
_MOST_SHARDS = 1_000
_SHARD_SUFFIXES = (".safetensors", ".bin")


def read_sharded(path: Path, read_shard: Callable[[Path], Checkpoint]) -> Checkpoint:
    """Read the tables of contents of all files that an index names.

    Args:
        path: The index.
        read_shard: Reads the table of contents of one file. Values are read later, on request.

    Raises:
        WeightsError: If the index is damaged or names a file elsewhere, or a file or a tensor in it
            is missing.
    """
    weight_map = _weight_map(path)
    shards: dict[str, Checkpoint] = {}
    tensors: dict[str, StoredTensor] = {}
    for name, file_name in weight_map.items():
        if file_name not in shards:
            shards[file_name] = _read_shard(path, file_name, read_shard)
        table = shards[file_name].entries.get("", {})
        if name not in table:
            raise WeightsError(
                f"{path}: {name} is not in {file_name}, where the index has it: copy the files of "
                "one version into the folder"
            )
        tensors[name] = table[name]
    (container, *_) = dict.fromkeys(shard.container for shard in shards.values())
    return Checkpoint(
        path=path,
        container=f"{container}, {len(shards)} files",
        entries={"": tensors},
        shards=tuple(path.with_name(file_name) for file_name in sorted(shards)),
    )


def _weight_map(path: Path) -> dict[str, str]:
    """Return the file name of each tensor; raise WeightsError if one lies elsewhere."""
    check_file_size(path, _LARGEST_INDEX_BYTES)
    try:
        weight_map = json.loads(path.read_bytes())["weight_map"]
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError("its weight_map has no names")
        if not all(isinstance(file_name, str) for file_name in weight_map.values()):
            raise ValueError("its weight_map has a file that is no text")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(
            f"{path}: damaged, or not an index of weight files: {first_line(error)}"
        ) from None
    file_names = dict.fromkeys(weight_map.values())
    if len(file_names) > _MOST_SHARDS:
        raise WeightsError(
            f"{path}: it names {len(file_names):,} files; at most {_MOST_SHARDS:,} are read"
        )
    for file_name in file_names:
        if not _lies_beside(file_name):
            raise WeightsError(
                f"{path}: refused: it names {file_name[:100]!r}, and the files of an index must "
                f"lie beside it and end in {' or '.join(_SHARD_SUFFIXES)}"
            )
    return weight_map


def _lies_beside(file_name: str) -> bool:
    """Return whether a text is the name of a weight file, without a folder on any system."""
    is_name = {PurePosixPath(file_name).name, PureWindowsPath(file_name).name} == {file_name}
    return is_name and file_name.isprintable() and file_name.endswith(_SHARD_SUFFIXES)


def _read_shard(
    index: Path, file_name: str, read_shard: Callable[[Path], Checkpoint]
) -> Checkpoint:
    path = index.with_name(file_name)
    if not path.is_file():
        raise WeightsError(
            f"{index}: {file_name} is missing, one of the files that hold its tensors: copy it "
            "into the folder"
        )
    return read_shard(path)
