"""Entry points for torch.hub: every name of `list_models`, and the functions themselves.

>>> torch.hub.load("PATH/TO/reslearn", "resnet50", source="local", num_classes=10)
>>> torch.hub.load("PATH/TO/reslearn", "create_model", "resnet50", source="local", pretrained=True)
"""

import sys as _sys
from collections.abc import Callable as _Callable
from pathlib import Path as _Path
from typing import Any as _Any

dependencies = ["torch", "numpy", "pydantic", "safetensors", "jaxtyping", "PIL"]

_sys.path.insert(0, str(_Path(__file__).parent / "src"))

from reslearn.interop.create import create_model, list_models  # noqa: E402


def _entry_point(name: str) -> _Callable[..., _Any]:
    def build(pretrained: bool | str = False, **arguments: _Any) -> _Any:
        return create_model(name, pretrained, **arguments)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f'Call create_model("{name}", pretrained, ...).\n\n{create_model.__doc__}'
    return build


_NAMES = list_models()
# torch.hub finds an entry point as a global name of this file.
globals().update({name: _entry_point(name) for name in _NAMES})

__all__ = ["create_model", "list_models", *_NAMES]
