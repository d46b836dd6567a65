"""Sums of loss, errors and images, kept on the device and read once every so many steps, one step late.

The late read lets the copy to the host travel while the next step runs; on the CPU the same order is kept, so that decisions
made on readings fall on the same steps everywhere.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reslearn.train.distributed import ALONE, Processes


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Means over the images of steps first_step..step, as trained: augmented, weights moving (the paper's training error)."""

    first_step: int
    step: int
    loss: float
    top1_error_pct: float  # NaN where the task is not classification
    lr: float  # at the last step


def sums(loss: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
    """[loss x images, errors, images] of a batch, float64 [3], from the mean loss, outputs [B, K] and targets [B]."""
    num_images = len(targets)
    if outputs.ndim == 2 and targets.ndim == 1 and not targets.is_floating_point():
        errors = (outputs.detach().argmax(1) != targets).sum().double()
    else:
        errors = loss.new_full((), float("nan"), dtype=torch.float64)
    return torch.stack(
        [loss.detach().double() * num_images, errors, errors.new_full((), float(num_images))]
    )


class Meter:
    """Adds up `sums` and gives a `Reading` for every window of `every` steps, at the step after its end (or at the very last).

    With many processes a window adds up the share of its own; readings are of all shares, and so the same everywhere.
    """

    def __init__(
        self, *, every: int, device: torch.device | str, processes: Processes = ALONE
    ) -> None:
        self.every = every
        self._processes = processes
        self.window = torch.zeros(3, dtype=torch.float64, device=device)
        self.first_step = 1
        self._sent: tuple[Tensor, int, int, float] | None = None
        # (torch.Event is the typed, device-neutral form)
        self._arrived = torch.Event(device) if torch.device(device).type == "cuda" else None

    def add(self, totals: Tensor, *, step: int, lr: float, last: bool) -> Reading | None:
        """Count the step that was just made; return the reading of the window that ended a step ago, if one did."""
        reading = self._receive() if not last else None
        self.window += totals
        if step % self.every == 0 or last:
            totals = self._processes.sum(self.window)
            if (
                last and self._sent is not None
            ):  # the window before ended at the last step but one: read both as one
                sent, first, _, _ = self._sent
                totals = totals + sent.to(totals.device)
                self.first_step, self._sent = first, None
            self._send(totals, step, lr)
        return self._receive() if last else reading

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, the windows of all processes; waits for the device."""
        sent = self._sent
        if sent is not None and self._arrived is not None:
            self._arrived.synchronize()
        return {
            "window": self._processes.gather(self.window).tolist(),
            "first_step": self.first_step,
            "sent": None if sent is None else [sent[0].tolist(), *sent[1:]],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was taken."""
        # (before there were many processes it was a list of three)
        self.window.copy_(
            torch.tensor(state["window"], dtype=torch.float64).view(-1, 3)[self._processes.rank]
        )
        self.first_step = state["first_step"]
        sent = state["sent"]
        self._sent = (
            None if sent is None else (torch.tensor(sent[0], dtype=torch.float64), *sent[1:])
        )

    def _send(self, totals: Tensor, step: int, lr: float) -> None:
        if self._arrived is None:
            copy = totals.clone()
        else:
            copy = torch.empty(3, dtype=torch.float64, pin_memory=True)
            copy.copy_(totals, non_blocking=True)
            self._arrived.record()
        self._sent = (copy, self.first_step, step, lr)
        self.first_step = step + 1
        self.window.zero_()

    def _receive(self) -> Reading | None:
        if self._sent is None:
            return None
        if self._arrived is not None:
            self._arrived.synchronize()
        totals, first_step, step, lr = self._sent
        self._sent = None
        loss, errors, images = totals.tolist()
        return Reading(
            first_step=first_step,
            step=step,
            loss=loss / images,
            top1_error_pct=100 * errors / images,
            lr=lr,
        )
