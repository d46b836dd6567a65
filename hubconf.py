"""Entry points for torch.hub.

>>> torch.hub.load("PATH/TO/reslearn", "create_model", "resnet50", source="local", num_classes=10)
"""

import sys
from pathlib import Path

dependencies = ["torch", "numpy", "pydantic", "safetensors", "jaxtyping", "PIL"]

sys.path.insert(0, str(Path(__file__).parent / "src"))

from reslearn.interop.create import create_model, list_models  # noqa: E402

__all__ = ["create_model", "list_models"]
