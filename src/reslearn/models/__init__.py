"""Residual learning itself: `Residual` around any module, and the networks of the paper, plain and residual, made of it.

>>> net = build("resnet56", num_classes=10)
>>> complexity(net).parameters
853018
"""

from reslearn.models.backbone import Backbone
from reslearn.models.catalogue import UnknownModel, build, names
from reslearn.models.complexity import Complexity, Layer, complexity
from reslearn.models.identity import deepen
from reslearn.models.initialisation import initialise, last_batch_norm
from reslearn.models.network import Network
from reslearn.models.residual import Residual
from reslearn.models.shortcuts import ZeroPadShortcut

__all__ = [
    "Backbone",
    "Complexity",
    "Layer",
    "Network",
    "Residual",
    "UnknownModel",
    "ZeroPadShortcut",
    "build",
    "complexity",
    "deepen",
    "initialise",
    "last_batch_norm",
    "names",
]
