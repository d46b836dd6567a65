"""The architecture that a file states in words, beside its tensors."""

import json
import re
from collections.abc import Iterator

from reslearn.interop.pretrained import FILES_OF_FOLDERS
from reslearn.interop.stored import Checkpoint, WeightsError

_KEYS = ("arch", "architecture", "model_name", "model_arch", "backbone", "network", "model", "net")
_BLURRED = re.compile(r"blur|resnetaa|anti_?alias")
_LARGEST_CONFIG_BYTES = 1 << 20


def refuse_stated_blur(checkpoint: Checkpoint) -> None:
    """Raise WeightsError if a file says that its network has blur pooling.

    Such networks have the names and shapes of a plain ResNet, so only words can tell. Words are
    looked up among the texts of the file, and in the config.json of a folder of timm.
    """
    for origin, architecture in _statements(checkpoint):
        if _BLURRED.search(architecture.lower()):
            raise WeightsError(
                f"{checkpoint.path} holds no network of the catalog: {origin} says "
                f"{architecture!r}, a network with blur pooling, which has the names and shapes of "
                "a plain ResNet and computes another function"
            )


def _statements(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Yield where an architecture is stated, and its name."""
    for entry, text in (*checkpoint.texts.items(), *checkpoint.metadata.items()):
        if entry.rpartition(".")[2] in _KEYS:
            yield f"its entry {entry!r}", text
    config = checkpoint.path.with_name("config.json")
    if checkpoint.path.name not in FILES_OF_FOLDERS or not config.is_file():
        return
    try:
        if config.stat().st_size <= _LARGEST_CONFIG_BYTES:
            content = json.loads(config.read_bytes())
            if isinstance(content, dict) and isinstance(content.get("architecture"), str):
                yield "config.json", content["architecture"]
    except (OSError, ValueError, RecursionError):
        return  # the weights do not need it
