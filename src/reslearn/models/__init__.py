"""Residual learning: `Residual` around any module, the networks of the paper, and surgery.

>>> net = build("resnet56", num_classes=10)
>>> complexity(net).parameters
853018
"""

from reslearn.models.backbone import Backbone, FeatureInfo, FeatureListNet
from reslearn.models.blocks import Block, blocks, layers
from reslearn.models.complexity import Complexity, Layer, complexity
from reslearn.models.construction import extend_with_identities
from reslearn.models.names import UnknownModelError, build, names
from reslearn.models.network import Network, initialize, last_batch_norm
from reslearn.models.recording import SurgeryError
from reslearn.models.residual import Residual
from reslearn.models.resnet import ZeroPadShortcut
from reslearn.models.surgery import (
    ConstructedNetwork,
    SurgeryResult,
    add_shortcuts,
    construct_from,
    has_shortcut,
    remove_blocks,
)
from reslearn.models.tracing import Segment, Trace, trace

__all__ = [
    "Backbone",
    "Block",
    "Complexity",
    "ConstructedNetwork",
    "FeatureInfo",
    "FeatureListNet",
    "Layer",
    "Network",
    "Residual",
    "Segment",
    "SurgeryError",
    "SurgeryResult",
    "Trace",
    "UnknownModelError",
    "ZeroPadShortcut",
    "add_shortcuts",
    "blocks",
    "build",
    "complexity",
    "construct_from",
    "extend_with_identities",
    "has_shortcut",
    "initialize",
    "last_batch_norm",
    "layers",
    "names",
    "remove_blocks",
    "trace",
]
