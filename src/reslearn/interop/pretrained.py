"""Published weights: download them once by name or URL, verify their sha256, and keep the file.

pretrained.toml lists the names, such as "torchvision:resnet50" and "timm:resnet50.a1_in1k". A URL
must come with a digest. The digest stands in the file name, as in resnet50-11ad3fa6.pth, or
behind the URL, as in https://.../model.safetensors#sha256=... An interrupted download is resumed.
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
from reslearn.interop.shipped import PREFIX, shipped_path
from reslearn.interop.stored import WeightsError

_URL = re.compile(r"https?://")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


def local_path(source: Path | str) -> Path:
    """Return the file of a source; download it if it is not on this machine yet.

    A source "reslearn:NAME" is a network that comes with the package. The file of a folder in the
    layout of a Hugging Face hub is its model.safetensors. A downloaded file is used again without
    network access, once its digest has been verified.

    Raises:
        WeightsError: If the name is unknown, or a URL has no digest.
        DataError: If the file cannot be downloaded, or has another digest.
    """
    if isinstance(source, str) and source.startswith(PREFIX):
        return shipped_path(source)
    if not has_name(source):
        path = Path(source)
        hub_file = path / "model.safetensors"
        return hub_file if hub_file.is_file() else path
    text = str(source)
    url, name, sha256 = _parse_url(text, text if _URL.match(text) else _url_of(text))
    path = folder() / name
    with locked_folder(folder()):
        if path.exists():
            verify(path, sha256, algorithm="sha256")
        else:
            fetch(url, path, sha256=sha256)
    return path


def has_name(source: Path | str) -> bool:
    """Return whether a source is a shipped or published name or a URL, and not a file."""
    if not isinstance(source, str):
        return False
    return bool(_URL.match(source)) or source.startswith((PREFIX, "torchvision:", "timm:"))


def folder() -> Path:
    """Return where downloaded weights are kept: below RESLEARN_DATA, or ~/.cache/reslearn."""
    data = os.environ.get("RESLEARN_DATA")
    parent = Path(data).expanduser() if data else Path.home() / ".cache" / "reslearn"
    return parent / "weights"


@cache
def published_weights() -> dict[str, dict[str, Any]]:
    """Return the table of pretrained.toml: "address" by name, and "mean" and "std" where given."""
    file = resources.files("reslearn.interop") / "pretrained.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def published_statistics(source: str) -> Mapping[str, Any] | None:
    """Return {"mean", "std"} of pixel values from 0 to 1; None if not listed."""
    entry = published_weights().get(source, {})
    return entry if "mean" in entry else None


def _url_of(name: str) -> str:
    table = published_weights()
    if name not in table:
        similar = difflib.get_close_matches(name, table, n=3, cutoff=0.3) or list(table)[:3]
        raise WeightsError(f"no weights called {name!r}; similar names: {', '.join(similar)}")
    return str(table[name]["address"])


def _parse_url(source: str, url: str) -> tuple[str, str, str]:
    """Return the URL without digest, the local file name, and the (start of the) digest."""
    url, separator, sha256 = url.partition("#sha256=")
    name = PurePosixPath(urlsplit(url).path).name
    if separator and _SHA256.fullmatch(sha256):
        sha256 = sha256.lower()
        # On a hub many files are called model.safetensors, so the local name needs the digest.
        return url, f"{Path(name).stem}-{sha256[:8]}{Path(name).suffix}", sha256
    digest = _DIGEST_IN_NAME.search(name)
    if separator or not digest:
        raise WeightsError(
            f"{source}: add the digest that the file must have, as in {url}#sha256=<64 digits>"
        )
    return url, name, digest[1]
