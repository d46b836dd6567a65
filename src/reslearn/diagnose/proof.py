"""Do shortcuts help, on a seed that the diagnosis has not used? The network before and after, each at its best learning rate.

Weights and the order of examples are those of a seed by which nothing was chosen and nothing judged, so that the curves could say no.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from reslearn.diagnose.conditions import Variant
from reslearn.diagnose.parallel import side_by_side
from reslearn.diagnose.trial import Trial, run_trial
from reslearn.diagnose.verdict import MARGIN

PROOF_SEED = 2000


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Two trials of PROOF_SEED, of as many steps as those of the diagnosis: the network as it is, and with shortcuts."""

    before: Trial
    after: Trial

    @property
    def gain(self) -> float:
        """By how much the training score falls, in shares of the loss of guessing."""
        return self.before.train_score - self.after.train_score

    @property
    def helps(self) -> bool:
        """By more than the margin of the rules: only then are shortcuts recommended."""
        return self.gain > MARGIN

    def told(self) -> str:
        """In one line."""
        numbers = f"training loss {self.before.train_score:.2f} before, {self.after.train_score:.2f} after, on a fresh seed"
        if self.helps:
            return f"shortcuts help: {numbers}"
        return f"shortcuts did not help: {numbers}; a gain of more than {MARGIN:g} is asked for"


def prove(
    conditions: Mapping[str, Variant], rates: Mapping[str, float], *, steps: int, jobs: int = 1
) -> Proof:
    """Train the conditions "deep" and "shortcuts" on PROOF_SEED, each at its rate, side by side where there are two jobs."""

    def trained(name: str, one: Variant) -> Trial:
        net = one.make(PROOF_SEED)
        return run_trial(
            one.problem, net, condition=name, lr=rates[one.name], seed=PROOF_SEED, steps=steps
        )

    pair = (("before", conditions["deep"]), ("after", conditions["shortcuts"]))
    before, after = side_by_side([partial(trained, *one) for one in pair], jobs)
    return Proof(before=before, after=after)
