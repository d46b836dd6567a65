"""What lies beside a network in its table, and what may change its outputs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from reslearn.interop.bundle import recorded_spec
from reslearn.interop.dialect import BY_STRUCTURE
from reslearn.interop.foreign_parts import (
    is_inert,
    is_never_called,
    is_other_form,
    is_query,
    part_of,
    with_part,
)
from reslearn.interop.identity import Identity
from reslearn.interop.named_table import common_path
from reslearn.interop.projection import is_projection, without_projection_head
from reslearn.interop.stored import StoredTensor, abbreviate
from reslearn.interop.table_layers import LayerPath, is_parameter, leaf_of, path_of

_NUM_LISTED = 3
_MOST_IMAGE_CHANNELS = 13  # of satellite images
_BLUR_NOTE = (
    "networks with blur pooling (resnetblur50 and resnetaa50 of timm) have exactly these names and "
    "shapes"
)
# Of images, as in a normalizer, or of a training.
_STATISTICS = re.compile(
    r"mean|std|var|cov|precision|queue|center|class_?weight|loss|criterion|best|acc", re.I
)
# Numbers of a wrapper that trains a network.
_SETTINGS = re.compile(r"decay|eps|step|epoch|device|dummy|momentum|count|lr$", re.I)
_UNSEEN_NOTE = (
    "tensors do not show strides, dilation, pooling, activations, and the epsilon of batch norm; "
    "those of usual ResNets are taken"
)
_DECIDES = "the error on labeled images decides: reslearn evaluate FILE DATA"
_POOL_NOTE = (
    "something without weights stands before its projections; an average pool is taken, as in "
    "ResNet-D"
)
_DIALECTS_WITH_BLUR = ("torchvision", "timm-d", BY_STRUCTURE)


def with_parts_beside(identity: Identity, tensors: Mapping[str, StoredTensor]) -> Identity:
    """Return an identity without a head that gives no classes, and with what lies beside it."""
    identity = without_projection_head(identity, tensors)
    scope = common_path(identity.names.values())
    heads = _left_out_heads(identity, tensors, scope)
    layers = _layers(tensors)

    def is_beside(name: str) -> bool:
        path = path_of(name)
        if is_inert(name, tensors[name]) or is_never_called(name):
            return True
        if path[: len(scope)] != scope:
            is_factor = tensors[name].dtype.is_floating_point and not _SETTINGS.search(name)
            if is_parameter(name):
                is_factor &= _is_of_vectors(layers[path])
            is_factor = is_factor and _may_scale_outputs(name, tensors[name], identity)
            return not (is_factor or _is_before_stem(name, tensors, identity))
        if not is_parameter(name):  # a buffer, such as the queue of MoCo
            if _may_scale_outputs(name, tensors[name], identity):
                return False
            return len(tensors[name].shape) < 3 or tensors[name].num_values <= 4
        return path in heads or path[:-1] in heads or _is_bias_of_lost_head(name, tensors, identity)

    beside = tuple(name for name in identity.unmatched if is_beside(name))
    notes = (*identity.notes, *_unseen(identity), *_further_heads(identity, beside, tensors))
    return replace(identity, beside=beside, notes=notes)


def _layers(tensors: Mapping[str, StoredTensor]) -> dict[LayerPath, dict[str, StoredTensor]]:
    """Return the tensors of each layer by torch's name of their last part."""
    layers: dict[LayerPath, dict[str, StoredTensor]] = {}
    for name, stored in tensors.items():
        layers.setdefault(path_of(name), {})[leaf_of(name)] = stored
    return layers


def _is_of_vectors(layer: Mapping[str, StoredTensor]) -> bool:
    """Return whether a layer only scales or shifts values, as layer norm does.

    Batch norms have statistics too. The biases of other layers belong to matrices and kernels.
    """
    shapes = [stored.shape for stored in layer.values()]
    # Layer norms of maps may have [channels, 1, 1].
    are_vectors = all(len(shape) < 2 or shape[1:] == (1, 1) for shape in shapes)
    return "running_mean" not in layer and are_vectors


def _is_before_stem(name: str, tensors: Mapping[str, StoredTensor], identity: Identity) -> bool:
    """Return whether a layer may return the images that the network sees.

    Such layers are a convolution from gray to color, or a batch norm of the input.
    """
    layer = name.rpartition(".")[0]
    if not is_parameter(name) or _STATISTICS.search(layer):
        return False
    channels = identity.spec["in_channels"]
    weight, mean = tensors.get(f"{layer}.weight"), tensors.get(f"{layer}.running_mean")
    if weight is not None and len(weight.shape) == 4:
        return weight.shape[0] == channels and weight.shape[1] <= _MOST_IMAGE_CHANNELS
    has_bias = weight is not None and f"{layer}.bias" in tensors
    vector = mean or (weight if has_bias else None)
    return vector is not None and vector.shape == (channels,)


def _is_bias_of_lost_head(
    name: str, tensors: Mapping[str, StoredTensor], identity: Identity
) -> bool:
    """Return whether this is a bias of a head whose matrix is no usual tensor, as if sparse."""
    layer = name.rpartition(".")[0]
    is_bias = identity.num_classes is None and leaf_of(name) == "bias"
    return is_bias and f"{layer}.weight" not in tensors


def _further_heads(
    identity: Identity, beside: Sequence[str], tensors: Mapping[str, StoredTensor]
) -> Iterator[str]:
    """Yield sentences about matrices that were not read and may be the head."""
    width = num_features(identity)
    fitting = [name for name in beside if tensors[name].shape[1:] == (width,)]
    head = identity.names.get("head.fc.weight")
    matrices = [name for name in fitting if leaf_of(name) == "weight"]
    if head is not None and matrices:
        labels = abbreviate(matrices, _NUM_LISTED)
        yield f"{labels} can take the same features as its head {head}, and is no part of it"
    if head is None:
        yield from _lost_head(identity, fitting, tensors)


def num_features(identity: Identity) -> int:
    """Return the channels of the last block, which the head takes."""
    weights = [name for name in identity.names if ".body.conv" in name and name.endswith("weight")]
    return identity.tensors[identity.names[weights[-1]]].shape[0]


def _lost_head(
    identity: Identity, fitting: Sequence[str], tensors: Mapping[str, StoredTensor]
) -> Iterator[str]:
    """Yield a sentence about what may be the head of a network without one, if none has it yet.

    Args:
        fitting: Names of matrices that can take the features.
    """
    other_forms = [name for name in fitting if is_other_form(name)]
    biases = [name for name in identity.unmatched if _is_bias_of_lost_head(name, tensors, identity)]
    sparse = [name for name in identity.checkpoint.unknown_objects if "sparse" in name]
    matrices = [name for name in fitting if leaf_of(name) == "weight"]
    matrices = [name for name in matrices if not is_projection(path_of(name))] or matrices
    if other_forms:
        label = with_part(other_forms[0], tensors[other_forms[0]].shape)
        yield f"{label} may be its head, and is left out, so there are no classes"
    elif sparse and biases:
        weight = f"{biases[0].removesuffix('bias')}weight"
        yield f"{weight} is sparse, and is left out, so there are no classes; save it as dense"
    elif sparse:
        yield "a sparse tensor may be its head, and is left out, so there are no classes"
    elif matrices and not any(name in " ".join(identity.notes) for name in fitting):
        yield (
            f"{abbreviate(matrices, _NUM_LISTED)} can take the same features, and is left out, so "
            "there are no classes: it may belong to this network or to another one of the table"
        )


def _unseen(identity: Identity) -> Iterator[str]:
    """Yield notes on what tensors do not show, if the file does not record its network."""
    if recorded_spec(identity.checkpoint.metadata) is not None:
        return
    is_by_structure = identity.dialect.name == BY_STRUCTURE
    may_blur = identity.spec["stem"] != "cifar" and identity.dialect.name in _DIALECTS_WITH_BLUR
    notes = (_UNSEEN_NOTE, *([_BLUR_NOTE] if may_blur else []), _DECIDES)
    yield "; ".join(notes)
    if is_by_structure and identity.spec["shortcut_pool"]:
        yield _POOL_NOTE


def _may_scale_outputs(name: str, stored: StoredTensor, identity: Identity) -> bool:
    """Return whether a tensor may be a temperature, or a factor or query of features or classes.

    A matrix that is no layer of its own may turn features, as the ones in torch's attention do.
    A network without a head returns its features, and such numbers belong to what is left out.
    """
    if identity.num_classes is None or _STATISTICS.search(name):
        return False
    matrix = identity.tensors[identity.names["head.fc.weight"]]
    if stored.num_values in (1, *matrix.shape[:2]):
        return True
    width = num_features(identity)
    if not is_parameter(name) and stored.shape in ((width, width), (3 * width, width)):
        return True
    return is_query(name) and stored.shape[-1:] == (width,)


def _left_out_heads(
    identity: Identity, tensors: Mapping[str, StoredTensor], scope: LayerPath
) -> set[LayerPath]:
    """Return the paths of matrices that are no part of the network, and the paths right above them.

    If a head was found, further matrices may lie before it. They do not if none of them returns as
    many values as the head takes. A single output may weight positions, and its name may say so.
    """
    shapes = {
        name: tensors[name].shape for name in identity.unmatched if len(tensors[name].shape) == 2
    }
    paths = {path_of(name) for name in shapes}
    if identity.num_classes is None:
        # The batch norms of such a head lie between its matrices.
        return paths | {path[:-1] for path in paths if len(path) > len(scope) + 1}
    width = tensors[identity.names["head.fc.weight"]].shape[1]
    returned = {shape[0] for shape in shapes.values()}
    may_lie_before = not returned.isdisjoint((1, width))
    if may_lie_before or any(part_of(name, shape) for name, shape in shapes.items()):
        return set()
    return paths
