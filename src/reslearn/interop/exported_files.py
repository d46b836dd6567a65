"""Files of `reslearn export` in the place of weights: they are programs, not tables of tensors.

The room `deploy` writes and opens them. Here they are only recognized, so that commands that need
the network say so. Otherwise an XML file would be called a web page.
"""

import zipfile
from pathlib import Path

from reslearn.interop.stored import WeightsError

FORMAT_KEY = "reslearn_format"
"""The key of the metadata of an exported file by which it is recognized."""
CARD_FILE = "reslearn.json"
"""The extra file of torch.export that holds the metadata."""


def refuse_exported_file(path: Path) -> None:
    """Raise WeightsError if `reslearn export` wrote the file. Other files are left alone."""
    if not path.is_file() or not _is_exported(path):
        return
    raise WeightsError(
        f"{path} is a file of `reslearn export`, which only `reslearn predict` and `reslearn "
        "serve` use; pass the run or the weights that it was exported from"
    )


def _is_exported(path: Path) -> bool:
    if path.suffix in (".onnx", ".xml"):
        return FORMAT_KEY.encode() in path.read_bytes()
    if path.suffix == ".pt2" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(f"/extra/{CARD_FILE}") for name in archive.namelist())
    return False
