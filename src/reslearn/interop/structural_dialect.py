"""The dialect of a file whose names belong to no project: its names are those of this file only."""

import re
from typing import Any

from reslearn.interop.dialect import BY_STRUCTURE, Dialect, dialects
from reslearn.interop.structure import StructureReading

_CONVOLUTION_BIAS = re.compile(r"\.conv\d?\.bias")


def structural_dialect(reading: StructureReading) -> Dialect:
    """Return a dialect with the exact names of a file, and with usual values of hidden switches.

    Networks with a 7 x 7 convolution or three 3 x 3 convolutions in the stem get the mean and
    deviation of ImageNet, as most published ones. That is a guess, and is reported as one.
    """
    names = reading.names
    is_normalized = any(".bn" in name for name in names)
    has_biases = any(_CONVOLUTION_BIAS.search(name) for name in names)
    spec: dict[str, Any] = {
        "stride_in": ["3x3", "1x1"],
        "zero_pad": ["split", "append"],
        "subsample": ["slice", "average"],
        "shortcut_pool": reading.pools_shortcuts,
        "preactivation": False,
    }
    return Dialect(
        name=BY_STRUCTURE,
        title="Names of no known project, read by shapes and order",
        source="the file itself",
        example="",
        containers=(),
        spec=spec,
        layers={},
        leaves={},
        transforms={"fc.weight": reading.head_transforms} if reading.head_transforms else {},
        # A bias before batch norm is subtracted from the mean.
        extra={"conv.bias": "{}.bias"} if is_normalized and has_biases else {},
        written_extra=(),
        missing=(),
        preprocess=dialects()["torchvision"].preprocess if reading.has_large_stem else {},
        wrapper="",
        exact_names=names,
    )
