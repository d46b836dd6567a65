"""The GPUs of this machine, shared out in the parts that recipes ask for: several thin runs use one better than each alone.

Found without torch, which a study does not need. What is shared is counted, not enforced: a run sees its GPU whole.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

_TINY = 1e-6  # ten tenths fill a GPU, whatever their sum is in binary


class Gpus:
    """How much of each GPU is free. Without GPUs every share is to be had, and is none: the run trains on cores."""

    def __init__(self, names: Sequence[str]) -> None:
        self._free = dict.fromkeys(names, 1.0)

    @classmethod
    def here(
        cls, environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")
    ) -> "Gpus":
        """Those that CUDA_VISIBLE_DEVICES names, or else all NVIDIA devices there are."""
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            return cls([name for name in visible.split(",") if name.strip() not in ("", "-1")])
        numbers = [
            int(match[1])
            for path in devices.glob("nvidia*")
            if (match := re.fullmatch(r"nvidia(\d+)", path.name))
        ]
        return cls([str(place) for place, _ in enumerate(sorted(numbers))])

    def has(self, share: float) -> bool:
        """Whether one GPU has so much left."""
        return not share or not self._free or max(self._free.values()) >= share - _TINY

    def take(self, share: float) -> str | None:
        """Set aside a share of the fullest GPU that has it left; its name for CUDA_VISIBLE_DEVICES, or None where none is needed.

        A share that is not left (a run that must run alone) is taken of the emptiest.
        """
        if not share or not self._free:
            return None
        fitting = [name for name, free in self._free.items() if free >= share - _TINY]
        name = (
            min(fitting, key=self._free.__getitem__)
            if fitting
            else max(self._free, key=self._free.__getitem__)
        )
        self._free[name] -= share
        return name

    def give_back(self, name: str | None, share: float) -> None:
        """What `take` gave is free again."""
        if name is not None:
            self._free[name] += share
