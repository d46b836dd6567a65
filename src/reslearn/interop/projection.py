"""Heads of contrastive learning: their outputs are no classes.

In MoCo v1 the head is one matrix of 128 outputs, which looks like 128 classes.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from reslearn.interop.identity import Identity
from reslearn.interop.stored import StoredTensor

_HEAD = "head.fc."
# Words in the name of a head, and in the name of an encoder, that only contrastive learning uses.
_HEAD_WORDS = re.compile(r"proj|predictor|prototype|mlp|contrast|embedding_head")
_ENCODER_WORDS = re.compile(
    r"(?:^|[._])(?:encoder_[qk]|query_encoder|key_encoder|encoder_(?:query|key)|momentum_encoder|"
    r"encoder_momentum|online(?:_\w+)?|target_(?:encoder|network|net))(?:[._]|$)"
)
_QUEUE = re.compile(r"(?:^|[._])(?:queue\w*|memory_bank|bank)$")


def without_projection_head(identity: Identity, tensors: Mapping[str, StoredTensor]) -> Identity:
    """Return the identity without its head, if the head is a projection of contrastive learning."""
    weight = identity.names.get(f"{_HEAD}weight")
    if weight is None or identity.num_classes is None:
        return identity
    reason = _reason(identity, weight, tensors)
    if reason is None:
        return identity
    head = [name for native, name in identity.names.items() if native.startswith(_HEAD)]
    return replace(
        identity,
        num_classes=None,
        names={
            native: name for native, name in identity.names.items() if not native.startswith(_HEAD)
        },
        unmatched=(*identity.unmatched, *head),
        notes=(
            *identity.notes,
            f"{weight} is a projection to {identity.num_classes} values, and no head of classes "
            f"({reason}): it is left out",
        ),
    )


def _reason(identity: Identity, weight: str, tensors: Mapping[str, StoredTensor]) -> str | None:
    """Return why a head is a projection; None if nothing says so."""
    name = weight.removeprefix(identity.prefix).rpartition(".")[0].lower()
    if _HEAD_WORDS.search(name):
        return "its name says so"
    for other_name, stored in tensors.items():
        is_queue = len(stored.shape) == 2 and _QUEUE.search(other_name.lower())
        if is_queue and identity.num_classes in stored.shape:
            return f"{other_name} holds such values"
    if _ENCODER_WORDS.search(f"{identity.entry}.{identity.prefix}".lower()):
        return f"{identity.prefix or identity.entry} is an encoder of contrastive learning"
    return None
