"""Decisions by the validation error: stop early, and keep the best network."""

import math
from typing import Any

from torch import Tensor, nn


class Selection:
    """Remembers the best validation error of a run. By default it decides nothing.

    Args:
        patience: Evaluations in a row without a new best error after which training stops. None:
            training does not stop early.
        keeps_weights: Keep a copy of the network with the best error.

    Attributes:
        best_step: The step of the best error; 0 before the first evaluation.
        last_step: The step at which training ends early; None while it continues.
    """

    def __init__(self, *, patience: int | None = None, keeps_weights: bool = False) -> None:
        self._patience, self.keeps_weights = patience, keeps_weights
        self.best_error_pct = math.inf
        self.best_step = 0
        self.last_step: int | None = None
        self._num_waited = 0
        self._weights: dict[str, Tensor] | None = None

    def observe(self, network: nn.Module, error_pct: float, *, step: int) -> None:
        """Compare a validation error with the best one. The first of equal errors is the best.

        After `patience` evaluations without a new best, training ends with the next step, which
        closes the last reading as in any run.
        """
        if error_pct < self.best_error_pct:
            self.best_error_pct, self.best_step, self._num_waited = error_pct, step, 0
            if self.keeps_weights:
                weights = network.state_dict()
                self._weights = {name: value.clone() for name, value in weights.items()}
            return
        self._num_waited += 1
        if self._patience is not None and self._num_waited >= self._patience:
            self.last_step = self.last_step or step + 1

    def restore_best(self, network: nn.Module) -> None:
        """Put the weights of the best network into `network`, if they were kept."""
        if self._weights is not None:
            network.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and the weights that are kept."""
        return {
            "best_error_pct": self.best_error_pct,
            "best_step": self.best_step,
            "last_step": self.last_step,
            "num_waited": self._num_waited,
            "weights": self._weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the values that `state_dict` returned."""
        self.best_error_pct, self.best_step = state["best_error_pct"], state["best_step"]
        self.last_step, self._num_waited = state["last_step"], state["num_waited"]
        self._weights = state["weights"]
