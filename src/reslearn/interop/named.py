"""Weights that have a name or an address: fetched once, verified by sha256, kept, and resumed where a connection was cut.

"torchvision:resnet50" and "timm:resnet50.a1_in1k" stand in named.toml. Any other address must bring its digest: in its own name, as
those do (resnet50-11ad3fa6.pth), or behind it (https://.../model.safetensors#sha256=...).
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from reslearn.data.fetch import fetch, locked_folder, verify
from reslearn.interop.stored import WeightsError

_ADDRESS = re.compile(r"https?://")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


@cache
def named() -> dict[str, dict[str, Any]]:
    """Names to address, and mean and standard deviation where they are not ImageNet's."""
    return tomllib.loads(
        (resources.files("reslearn.interop") / "named.toml").read_text(encoding="utf-8")
    )


def folder() -> Path:
    """Where fetched weights are kept: below RESLEARN_DATA, or ~/.cache/reslearn."""
    data = os.environ.get("RESLEARN_DATA")
    return (Path(data).expanduser() if data else Path.home() / ".cache" / "reslearn") / "weights"


def is_named(source: Path | str) -> bool:
    """Whether this is a name or an address, and no file."""
    return isinstance(source, str) and bool(
        _ADDRESS.match(source) or source.startswith(("torchvision:", "timm:"))
    )


def fetched(source: Path | str) -> Path:
    """The file of a source; downloaded where it is not here yet. WeightsError for an unknown name; DataError without network.

    Of a folder in the layout of a hub it is the model.safetensors.
    A file that lies in `folder()` is used without network, once its digest has been verified.
    """
    if not is_named(source):
        path = Path(source)
        return path / "model.safetensors" if (path / "model.safetensors").is_file() else path
    address = str(source) if _ADDRESS.match(str(source)) else _address(str(source))
    address, behind, sha256 = address.partition("#sha256=")
    name = PurePosixPath(urlsplit(address).path).name
    if behind and _SHA256.fullmatch(sha256):
        sha256 = sha256.lower()
        name = f"{Path(name).stem}-{sha256[:8]}{Path(name).suffix}"  # half the hub's files are called model.safetensors
    elif not behind and (found := _DIGEST_IN_NAME.search(name)):
        sha256 = found[1]
    else:
        raise WeightsError(
            f"{source}: add the digest that the file must have, as in {address}#sha256=<64 digits>"
        )
    kept = folder() / name
    with locked_folder(folder()):
        if kept.exists():
            verify(kept, sha256, algorithm="sha256")
        else:
            fetch(address, kept, sha256=sha256)
    return kept


def preprocess_numbers(source: str) -> Mapping[str, Any] | None:
    """{"mean", "std"} of a named source that says so."""
    entry = named().get(source, {})
    return entry if "mean" in entry else None


def _address(name: str) -> str:
    known = named()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
        raise WeightsError(
            f"no weights called {name!r}; near are {', '.join(near) or ', '.join(list(known)[:3])}"
        )
    return str(known[name]["address"])
