"""Tensors that no plain ResNet has: the part they belong to, by the words in their names.

A network with squeeze-and-excitation has all tensors of a plain ResNet and some more. Without
these it would compute another function, so it is refused, and the message names the part. Counters
and statistics of tools have no effect on the output and may be left out.
"""

import re
from collections import Counter
from collections.abc import Mapping

from reslearn.interop.stored import StoredTensor

_SQUEEZE = "squeeze-and-excitation, as in SE networks and ResNet-RS"
_CHANNEL = "efficient channel attention, as in ECA networks"
_BLUR = "blur pooling, as in anti-aliased networks"
_ATTENTION = "attention"
_ATTENTION_POOL = "attention pooling, as in CLIP"
_OFFSET = "deformable convolution"
_ADAPTER = "an adapter"
_ACTIVATION = "a learned activation"
_QUANTIZED = "quantized weights; use the checkpoint from before the quantization"
_SHARDED = "flat parameters of FSDP; save a full state dict"
_REPARAMETRIZED = (
    "pruned or normalized weights, which prune.remove, remove_weight_norm and "
    "remove_parametrizations of torch.nn.utils restore"
)
_WORDS = {
    _SQUEEZE: (
        "se|se_?module|se_?layer|se_?block|squeeze|squeeze_excite|excitation|excite|scse|fc_?se"
    ),
    _CHANNEL: "eca|eca_?layer|eca_?module|ceca",
    _BLUR: "filt|blur|blur_?pool|aa|anti_?alias",
    _ATTENTION: (
        "cbam|bam|ca|sa|attn|attention|channel_?att\\w*|spatial_?att\\w*|non_?local|nl|"
        "gc|gc_?block|context_?block|ge|gather|coord_?att\\w*"
    ),
    _ATTENTION_POOL: "attn_?pool|attention_?pool",
    _OFFSET: "offset|conv\\d?_offset|conv_mask",
    "split attention, as in SK networks and ResNeSt": "paths|radix|fc_reduce|fc_select",
    "parallel convolutions, as in Res2Net": "convs|bns",
    _ADAPTER: "lora|lora_a|lora_b|adapter|adapters",
    _ACTIVATION: "prelu|act\\d?|relu\\d?|swish|frelu",
    "biases beside the convolutions, as in Fixup networks": "bias\\d[ab]",
    "stochastic depth, which may scale the residual": "prob|survival\\w*|drop_?path",
    "batch norms for a second kind of images, as in AdvProp": "aux_?bn|bn_?aux",
    _QUANTIZED: "zero_point|\\w*fake_quant|activation_post_process|_packed_params",
    "numbers of Keras 3 in the place of names; save the model as .h5": "vars/\\d+",
    _SHARDED: "_?flat_param\\w*",
    "a scale of the residual": "alpha|layer_?scale|ls\\d?|gamma_?\\d|res_?scale|skip_?gain|rezero",
}
_PATTERNS = {
    part: re.compile(rf"(?:^|[./_])(?:{words})\d?(?:[./_]|$)") for part, words in _WORDS.items()
}
# Case matters: "conv.in" is no instance norm.
_INSTANCE_NORM = re.compile(r"(?:^|[./])IN(?:[./]|$)")
_OTHER_FORM = re.compile(r"(?:weight_(?:orig|mask|g|v|u)|(?:^|[./])mask|parametrizations\.[\w.]*)$")
_QUERY = re.compile(r"(?:^|[._])(?:q|\w*quer(?:y|ies)|\w*tokens?|latents?|probes?)$", re.I)
_NEVER_CALLED = re.compile(r"(?:^|\.)sub_block1\.layer\.")
# Tensors of tools (thop, swa_utils, optimizers of averages) without an effect on the output.
_INERT_LEAVES = frozenset(
    [
        "num_batches_tracked",
        "total_ops",
        "total_params",
        "n_averaged",
        "num_updates",
        "decay",
        "step",
    ]
)


def part_of(name: str, shape: tuple[int, ...]) -> str | None:
    """Return the part of a network that a tensor outside plain ResNets belongs to.

    Returns:
        Words such as "attention"; None if the name says nothing.
    """
    is_over_channels = len(shape) == 3 and shape[:2] == (1, 1) and shape[2] > 1
    if is_over_channels and name.endswith(".weight"):
        return _CHANNEL  # a convolution over the channels, which timm calls se.conv
    if _INSTANCE_NORM.search(name):
        return "instance norm, as in IBN networks"
    if _OTHER_FORM.search(name):
        return _REPARAMETRIZED
    lowered = name.lower()
    for part, pattern in _PATTERNS.items():
        if pattern.search(lowered):
            return part
    return None


def main_part(tensors: Mapping[str, StoredTensor]) -> str | None:
    """Return the part that most tensors of a table belong to; None if their names say nothing."""
    parts: Counter[str] = Counter()
    for name, stored in tensors.items():
        part = part_of(name, stored.shape)
        if part is not None:
            parts[part] += 1
    return parts.most_common(1)[0][0] if parts else None


def is_inert(name: str, stored: StoredTensor) -> bool:
    """Return whether a tensor is a counter, or a statistic of a tool, without an effect."""
    leaf = re.split(r"[./]", name)[-1]
    is_number = stored.num_values == 1
    return is_number and (leaf in _INERT_LEAVES or not stored.dtype.is_floating_point)


def is_never_called(name: str) -> bool:
    """Return whether a project creates a layer and never calls it, as TRADES' wide networks do."""
    return _NEVER_CALLED.search(name) is not None


def with_part(name: str, shape: tuple[int, ...]) -> str:
    """Return the name of a tensor and, if the name says it, the part it belongs to."""
    part = part_of(name, shape)
    return f"{name} ({part})" if part else name


def is_learned_activation(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor belongs to an activation with parameters."""
    return part_of(name, shape) == _ACTIVATION


def is_query(name: str) -> bool:
    """Return whether a tensor is a learned vector that weights the positions of features."""
    return _QUERY.search(name) is not None


def is_other_form(name: str) -> bool:
    """Return whether a tensor belongs to a weight that is stored in another form, as if pruned."""
    return _OTHER_FORM.search(name) is not None


def is_side_branch(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a convolution is a side branch of a block, and no part of its body."""
    return part_of(name, shape) in (_SQUEEZE, _CHANNEL, _ATTENTION, _OFFSET, _ADAPTER)
