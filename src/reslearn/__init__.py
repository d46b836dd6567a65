"""Residual learning: build, train, compare and diagnose deep networks.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition (2015).

The names below are loaded when they are first used. `import reslearn` alone is instant and does
not import torch. Everything else is imported from its subpackage, for example
`from reslearn.models import Residual`.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, whose import would delay the handler of Ctrl-C
if TYPE_CHECKING:
    from typing import Any

    from reslearn.deploy import Predictor
    from reslearn.interop import create_model, list_models, load_network
    from reslearn.models import Residual, add_shortcuts
    from reslearn.train import fit

__version__ = "0.1.0"

__all__ = [
    "Predictor",
    "Residual",
    "add_shortcuts",
    "create_model",
    "diagnose",
    "fit",
    "list_models",
    "load_network",
]

_SUBPACKAGES = {
    "Predictor": "reslearn.deploy",
    "Residual": "reslearn.models",
    "add_shortcuts": "reslearn.models",
    "create_model": "reslearn.interop",
    "fit": "reslearn.train",
    "list_models": "reslearn.interop",
    "load_network": "reslearn.interop",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its subpackage on first use."""
    from importlib import import_module

    if name == "diagnose":
        return import_module("reslearn.diagnose")  # a subpackage that can be called
    if name not in _SUBPACKAGES:
        raise AttributeError(f"module 'reslearn' has no attribute {name!r}")
    value = getattr(import_module(_SUBPACKAGES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
