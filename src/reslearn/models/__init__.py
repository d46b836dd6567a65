"""Residual learning itself: `Residual` around any module, and the networks of the paper, plain and residual, made of it.

>>> net = build("resnet56", num_classes=10)
>>> complexity(net).parameters
853018
"""

from reslearn.models.backbone import Backbone
from reslearn.models.blocks import Block, blocks, layers
from reslearn.models.complexity import Complexity, Layer, complexity
from reslearn.models.construction import extend_with_identities
from reslearn.models.initialization import initialize, last_batch_norm
from reslearn.models.names import UnknownModel, build, names
from reslearn.models.network import Network
from reslearn.models.residual import Residual
from reslearn.models.resnet import ZeroPadShortcut
from reslearn.models.surgery import (
    Constructed,
    Operated,
    add_shortcuts,
    construct_from,
    has_shortcut,
    remove_blocks,
)
from reslearn.models.tracing import Opened, Segment, SurgeryError, trace

__all__ = [
    "Backbone",
    "Block",
    "Complexity",
    "Constructed",
    "Layer",
    "Network",
    "Opened",
    "Operated",
    "Residual",
    "Segment",
    "SurgeryError",
    "UnknownModel",
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
