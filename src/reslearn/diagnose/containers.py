"""Open containers of torch that torch.fx records as one piece, so that their layers can be removed.

`nn.TransformerEncoder` becomes a `Sequential` of its layers, with the same names of parameters. The
rebuilt network must give the outputs of the original on a batch. Else the original is used.
"""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy

import torch
from torch import Tensor, nn

from reslearn.diagnose.problem import Problem
from reslearn.models import Trace, trace

_TOLERANCE = 1e-4


def traced_network(problem: Problem, seed: int) -> Trace:
    """Trace the network of a seed, with its containers open.

    Raises:
        SurgeryError: If it cannot be traced.
    """
    return trace(open_network(problem, seed), problem.example)


def open_network(problem: Problem, seed: int) -> nn.Module:
    """Return the network of a seed, with its containers open if that changes no output."""
    net = problem.net(seed)
    return with_open_containers(net, problem.example)


def with_open_containers(net: nn.Module, example: Tensor) -> nn.Module:
    """Return a copy of `net` with open containers; `net` itself if there is none to open.

    Args:
        example: A batch on which both must give the same outputs, up to rounding.
    """
    if not any(isinstance(module, nn.TransformerEncoder) for module in net.modules()):
        return net
    opened = _opened(deepcopy(net))
    return opened if _gives_equal_outputs(net, opened, example) else net


def _opened(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.TransformerEncoder):
        return _sequential(module)
    for name, child in module.named_children():
        setattr(module, name, _opened(child))
    return module


def _sequential(encoder: nn.TransformerEncoder) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict(layers=nn.Sequential(*encoder.layers))
    if encoder.norm is not None:
        parts["norm"] = encoder.norm
    return nn.Sequential(parts)


@torch.no_grad()
def _gives_equal_outputs(net: nn.Module, opened: nn.Module, example: Tensor) -> bool:
    was_training = net.training
    try:
        expected, outputs = net.eval()(example), opened.eval()(example)
    except Exception:  # forward may pass a mask, which a Sequential does not take
        return False
    finally:
        net.train(was_training)
        opened.train(was_training)
    if outputs.shape != expected.shape:
        return False
    difference = float((outputs - expected).abs().max())
    return difference <= _TOLERANCE * max(1.0, float(expected.abs().max()))
