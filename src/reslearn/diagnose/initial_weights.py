"""Initial weights that suit the activations of a network.

Rectifiers get He's rule (2015), because half of their inputs are zero. Activations that saturate
get the rule of Glorot and Bengio (2010). A tanh needs a gain of 5/3. A sigmoid needs a gain of 4,
since its slope is at most 1/4.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from reslearn.diagnose.call_record import CallRecord, record_calls
from reslearn.models.tracing import ACTIVATION_NAMES

if TYPE_CHECKING:
    from reslearn.diagnose.problem import Problem

_GAINS = {"tanh": 1.667, "sigmoid": 4.0, "hardtanh": 1.0, "hardsigmoid": 6.0, "softsign": 1.0}


@dataclass(frozen=True, kw_only=True)
class Initializer:
    """A rule for initial weights.

    Attributes:
        gain: The gain of Glorot's rule; None for He's rule.
    """

    gain: float | None = None

    @property
    def text(self) -> str:
        """How messages call the function of torch that draws the weights."""
        if self.gain is None:
            return "nn.init.kaiming_normal_"
        return f"nn.init.xavier_uniform_ (gain {self.gain:g})"

    @property
    def rule(self) -> str:
        """Whose rule it is, with its year."""
        return "He's rule (2015)" if self.gain is None else "Glorot's rule (2010)"

    @property
    def code(self) -> str:
        """Python code that draws `module.weight`."""
        if self.gain is None:
            return 'nn.init.kaiming_normal_(module.weight, nonlinearity="relu")'
        return f"nn.init.xavier_uniform_(module.weight, gain={self.gain:g})"

    def draw(self, weight: Tensor) -> None:
        """Draw weights in place, as `code` does."""
        if self.gain is None:
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
        else:
            nn.init.xavier_uniform_(weight, gain=self.gain)


def suitable_initializer(problem: Problem) -> Initializer:
    """Return the rule that suits the network of a problem; He's if its calls are unknown."""
    try:
        record = record_calls(deepcopy(problem.net(0)), problem.example)
    except Exception:  # the network is the user's code
        return Initializer()
    return initializer_of(record)


def initializer_of(record: CallRecord) -> Initializer:
    """Return the rule that suits most of the activations between the layers of a network.

    What follows the last layer is left out: it limits the outputs, and passes no signal on.
    """
    indices = [index for index, call in enumerate(record.calls) if call.is_layer]
    between = record.calls[: indices[-1]] if indices else ()
    counts = Counter(call.name for call in between if call.name in ACTIVATION_NAMES)
    activation = max(counts, key=lambda name: counts[name], default="")
    return Initializer(gain=_GAINS.get(activation))
