"""Converted networks on disk, so that a server does not convert its network at every start.

Each is a folder named after a digest of all that a conversion depends on: weights, card, form and
versions of the libraries. digests.json in it holds the SHA-256 of each file. A network that does
not match is converted again. The answers are compared with PyTorch in any case (engine_choice.py).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from reslearn.deploy.forms import ExportForm
from reslearn.deploy.model_card import ModelCard
from reslearn.models import Network
from reslearn.runs.json_files import file_digests

_DIGESTS = "digests.json"
_LIBRARIES = ("torch", "onnx", "onnxscript", "openvino")
# A resnet50 takes 100 MB. The ones that were used last are kept.
_MAX_NETWORKS = 8


class ConvertedNetwork:
    """The place of one converted network in the cache.

    Args:
        folder: The folder of all converted networks.
        network: The network before its conversion.
        card: Its card, which the file contains.
        form: The form to which it is converted.
    """

    def __init__(self, folder: Path, network: Network, card: ModelCard, form: ExportForm) -> None:
        conditions = {
            "weights": weights_digest(network),
            "network": {key: str(value) for key, value in network.spec.items()},
            "card": card.to_metadata(),
            "form": form.value,
            "versions": library_versions(_LIBRARIES),
        }
        text = json.dumps(conditions, sort_keys=True)
        self._folder = folder / hashlib.sha256(text.encode()).hexdigest()[:32]
        self._name = f"model{form.suffix}"

    def path(self) -> Path | None:
        """Return the file; None if there is none, or a file of the network was changed."""
        path = self._folder / self._name
        try:
            digests = json.loads((self._folder / _DIGESTS).read_text(encoding="utf-8"))
            files = [file for file in self._folder.iterdir() if file.name != _DIGESTS]
            if path not in files or file_digests(files, self._folder) != digests:
                return None
            os.utime(self._folder)
        except (OSError, ValueError):
            return None
        return path

    def keep(self, path: Path) -> None:
        """Copy the files of a conversion, and remove the networks that were not used for longest.

        A folder that cannot be written keeps nothing.

        Args:
            path: The file. OpenVINO has a second one beside it.
        """
        temporary = self._folder.with_name(f".{self._folder.name}.{os.getpid()}")
        with suppress(OSError):
            try:
                temporary.mkdir(parents=True)
                for file in files_of(path):
                    shutil.copyfile(file, temporary / f"{Path(self._name).stem}{file.suffix}")
                digests = file_digests(list(temporary.iterdir()), temporary)
                (temporary / _DIGESTS).write_text(json.dumps(digests), encoding="utf-8")
                shutil.rmtree(self._folder, ignore_errors=True)
                temporary.rename(self._folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            _remove_oldest(self._folder.parent)


def files_of(path: Path) -> Sequence[Path]:
    """Return the files of an exported network: OpenVINO keeps its weights in a second one."""
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def weights_digest(network: Network) -> str:
    """Return the SHA-256 of names, types, shapes and values of all weights and statistics."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        sha256.update(values.numpy())
    return sha256.hexdigest()


def library_versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of libraries; those that are not installed are left out."""
    versions = {}
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _remove_oldest(folder: Path) -> None:
    by_time = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in by_time[_MAX_NETWORKS:]:
        shutil.rmtree(path, ignore_errors=True)
