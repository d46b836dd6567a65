"""The network before and after a repair, trained on a fresh seed."""

from __future__ import annotations

from dataclasses import dataclass

from reslearn.diagnose.scores import MARGIN
from reslearn.diagnose.trial import Trial

PROOF_SEED = 2000
"""Nothing is chosen or judged by this seed, so the proof may contradict the diagnosis."""
REPAIRS = {
    "shortcuts": "Shortcuts help",
    "initialized": "New initial weights help",
    "bare": "An output layer without its activation helps",
    "standardized": "Standardized inputs help",
    "given": "Another learning rate helps",
    "registered": "Registered modules help",
}
"""What a proof says about each repair. "given" is the repair of the user's learning rate."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The network before and after a repair, trained on a fresh seed.

    Both are trained for as many steps as the judged trials. Each is trained at its best learning
    rate, unless the rate itself is repaired.

    Attributes:
        repair: A key of REPAIRS.
    """

    before: Trial
    after: Trial
    repair: str = "shortcuts"

    @property
    def gain(self) -> float:
        """Decrease of the training score, as a share of the loss of guessing."""
        return self.before.train_score - self.after.train_score

    @property
    def helps(self) -> bool:
        """Whether the gain exceeds the margin of the rules. Only then is a patch recommended."""
        return self.gain > MARGIN

    def text(self) -> str:
        """Return a sentence with both training losses, without its final period."""
        losses = (
            f"on a fresh seed, the training loss is {self.before.train_score:.2f} before and "
            f"{self.after.train_score:.2f} after"
        )
        statement = REPAIRS[self.repair]
        if self.helps:
            return f"{statement}: {losses}"
        verb = statement.rpartition(" ")[2]
        negated = "do not help" if verb == "help" else "does not help"
        statement = f"{statement.rpartition(' ')[0]} {negated}"
        return f"{statement}: {losses}, and a gain of more than {MARGIN:g} is needed"
