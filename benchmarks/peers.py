"""Import torchvision and timm from the folder into which `make peers` installs them.

The folder comes last on the path, so packages that both environments have come from ours.
torchvision's binary needs a CUDA build of torch. With a CPU-only build its import stops at the
first operator that it describes, so the two operators are declared here. Networks then work,
detection operators do not.
"""

import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
FOLDERS = sorted((ROOT / ".venv-peers").glob("lib/python3.*/site-packages"))
REASON = "torchvision and timm are not installed: run `make peers` in the clone"
_LIBRARIES: list[object] = []


def installed() -> bool:
    """Return whether the peers are installed, and put them on the path."""
    if not FOLDERS or not (FOLDERS[0] / "timm").is_dir():
        return False
    if str(FOLDERS[0]) not in sys.path:
        sys.path.append(str(FOLDERS[0]))
        if torch.version.cuda is None:
            library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            for name in ("nms", "qnms"):
                library.define(name + signature)  # type: ignore[no-untyped-call]
            _LIBRARIES.append(library)  # the declaration lasts as long as this object
    return True
