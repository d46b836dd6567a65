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

# A folder of timm or transformers may hold any. An index names the files of large weights.
FILES_OF_FOLDERS = (
    *("model.safetensors", "pytorch_model.bin"),
    *("model.safetensors.index.json", "pytorch_model.bin.index.json"),
)
# A page of a hub is meant as well as an id; the address of a file on a hub is longer.
_HUB_PREFIX = re.compile(r"hf[-_]hub:|hf://|https?://(?:huggingface\.co|hf\.co)/")
_HUB_ID = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}")
_FILE_NAME = re.compile(
    r"\.(pth?|th|bin|ckpt|tar|safetensors|pkl|pickle|caffemodel|onnx|h5|hdf5|npz|pt2|xml|zip"
    r"|csv|tsv)$"
)
_URL = re.compile(r"https?://")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_DIGEST_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


def local_path(source: Path | str) -> Path:
    """Return the file of a source; download it if it is not on this machine yet.

    A source "reslearn:NAME" is a network that comes with the package. A folder that
    `save_pretrained` wrote stands for its weight file. A downloaded file is used again without
    network access, once its digest has been verified.

    Raises:
        WeightsError: If the name is unknown, a URL has no digest, or the source is a hub id.
        DataError: If the file cannot be downloaded, or has another digest.
    """
    if isinstance(source, str) and source.startswith(PREFIX):
        return shipped_path(source)
    if (hint := hub_hint(source)) and not Path(source).exists():
        raise WeightsError(f"{source}: there is no such file or folder{hint}")
    if not has_name(source):
        path = Path(source)
        return weights_file_in(path) or path
    text = str(source)
    url, name, sha256 = _parse_url(text, text if _URL.match(text) else _url_of(text))
    path = folder() / name
    with locked_folder(folder()):
        if path.exists():
            verify(path, sha256, algorithm="sha256")
        else:
            fetch(url, path, sha256=sha256)
    return path


def weights_file_in(folder: Path) -> Path | None:
    """Return the weight file of a folder that `save_pretrained` wrote, here or elsewhere.

    Returns:
        None for all other folders, and for files.
    """
    for name in FILES_OF_FOLDERS:
        if (folder / name).is_file():
            return folder / name
    return None


def hub_hint(source: Path | str) -> str:
    """Return the end of an error message if a source is an id or a page of a hub, else "".

    A text such as "microsoft/resnet-50" may be a hub id if there is no folder "microsoft" here.
    """
    text = str(source)
    match = _HUB_PREFIX.match(text)
    hub_id = text[match.end() :].rstrip("/") if match else text
    if not _HUB_ID.fullmatch(hub_id):
        return ""
    owner, _, name = hub_id.partition("/")
    if match is None and (Path(owner).exists() or _FILE_NAME.search(name)):
        return ""
    beginning = "; that is a hub id" if match else "; if that is a hub id"
    if f"{owner}:{name}" in published_weights():
        return f"{beginning}: pass {owner}:{name}"
    return (
        f"{beginning}: offline, give a folder (hf download {hub_id} --local-dir {name}, then "
        f"pass {name})"
    )


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
