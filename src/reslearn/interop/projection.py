"""Heads whose outputs are no classes: of contrastive or metric learning, or before further layers.

In MoCo v1 the head is one matrix of 128 outputs, which looks like 128 classes.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from reslearn.interop.identity import Identity
from reslearn.interop.stored import StoredTensor
from reslearn.interop.table_layers import LayerPath, is_parameter, leaf_of

FOUND_BY_SHAPE = "its head was found by its shape"
_HEAD = "head.fc."
# Words in the name of a head, and in the name of an encoder, that only contrastive and metric
# learning use.
_HEAD_WORDS = re.compile(r"proj|predictor|prototype|mlp|contrast|embed|whiten")
# Losses with margins compare directions: they normalize the features and the rows of the matrix.
_MARGIN_WORDS = re.compile(
    r"(?:^|[._])(?:\w*(?:arc|cos|sphere|curricular|mag|ada|norm)_?face\w*|arc|cos|cosine|"
    r"\w*margin\w*|am_?softmax|metric|prox(?:y|ies))(?:[._]|$)"
)
_ENCODER_WORDS = re.compile(
    r"(?:^|[._])(?:encoder_[qk]|query_encoder|key_encoder|encoder_(?:query|key)|momentum_encoder|"
    r"encoder_momentum|online(?:_\w+)?|target_(?:encoder|network|net)|embed\w*)(?:[._]|$)"
)
_QUEUE = re.compile(r"(?:^|[._])(?:queue\w*|memory_bank|bank)$")


def is_projection(path: LayerPath) -> bool:
    """Return whether the path of a matrix says that its outputs are no classes."""
    return _HEAD_WORDS.search(".".join(path).lower()) is not None


def without_projection_head(identity: Identity, tensors: Mapping[str, StoredTensor]) -> Identity:
    """Return the identity without its head, if the outputs of the head are no classes."""
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
            *(note for note in identity.notes if not note.startswith(FOUND_BY_SHAPE)),
            f"{weight} is a projection to {identity.num_classes} values, and no head of classes "
            f"({reason}): it is left out",
        ),
    )


def _reason(identity: Identity, weight: str, tensors: Mapping[str, StoredTensor]) -> str | None:
    """Return why a head is a projection; None if nothing says so."""
    name = weight.removeprefix(identity.prefix).rpartition(".")[0].lower()
    if _HEAD_WORDS.search(name):
        return "its name says so"
    if _MARGIN_WORDS.search(name):
        return "its name is one of metric learning, which compares normalized vectors"
    for other_name in identity.unmatched:
        if _takes(other_name, tensors[other_name], identity.num_classes):
            return f"{other_name} takes these values"
    for other_name, stored in tensors.items():
        is_queue = len(stored.shape) == 2 and _QUEUE.search(other_name.lower())
        if is_queue and identity.num_classes in stored.shape:
            return f"{other_name} holds such values"
    if _ENCODER_WORDS.search(f"{identity.entry}.{identity.prefix}".lower()):
        return (
            f"{identity.prefix or identity.entry} is an encoder of contrastive or metric learning"
        )
    return None


def _takes(name: str, stored: StoredTensor, num_values: int | None) -> bool:
    """Return whether a matrix or a batch norm has this number of inputs."""
    if not is_parameter(name):
        return False
    if leaf_of(name) == "weight" and len(stored.shape) == 2:
        return stored.shape[1] == num_values
    return leaf_of(name) == "running_mean" and stored.shape == (num_values,)
