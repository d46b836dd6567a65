"""The projects whose weights are read here, where `make peers` has put them; beside a CPU-only torch.

Their folder comes last on the path, so that what both bring is ours. torchvision's binary is tied to a CUDA build of torch: beside a
CPU-only one its import stops at the first operator it describes, so the two are declared. Networks work, detection operators do not.
"""

import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
FOLDERS = sorted((ROOT / ".venv-peers").glob("lib/python3.*/site-packages"))
REASON = "`make peers` installs torchvision and timm for this test"
_LIBRARIES: list[object] = []


def installed() -> bool:
    """Whether the peers are there; puts them on the path."""
    if not FOLDERS or not (FOLDERS[0] / "timm").is_dir():
        return False
    if str(FOLDERS[0]) not in sys.path:
        sys.path.append(str(FOLDERS[0]))
        if torch.version.cuda is None:
            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _LIBRARIES.append(library)  # it lasts as long as the object
    return True
