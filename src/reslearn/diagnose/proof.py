"""The network before and after a repair, trained on a fresh seed."""

from __future__ import annotations

from dataclasses import dataclass

from reslearn.diagnose.scores import MARGIN
from reslearn.diagnose.trial import Trial

PROOF_SEED = 2000
"""Nothing is chosen or judged by this seed, so the proof may contradict the diagnosis."""
REPAIRS = {
    "shortcuts": "shortcuts",
    "initialized": "new initial weights",
    "bare": "an output layer without its activation",
    "standardized": "standardized inputs",
    "given": "the learning rate",
    "registered": "registered modules",
}
"""How a proof calls each repair. "given" is the repair of the user's learning rate."""
_SINGULAR = ("bare", "given")


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The network before and after a repair, trained on a fresh seed.

    Both are trained for as many steps as the judged trials. Each is trained at its best learning
    rate, unless the rate itself is repaired.

    Attributes:
        repair: A key of REPAIRS.
        further: Repairs that followed, because the first one was not enough.
    """

    before: Trial
    after: Trial
    repair: str = "shortcuts"
    further: tuple[str, ...] = ()

    @property
    def repairs(self) -> tuple[str, ...]:
        """All repairs, in the order in which they were found."""
        return (self.repair, *self.further)

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
        names = [self._text_of(repair) for repair in self.repairs]
        subject = " and ".join(names)
        is_singular = len(names) == 1 and self.repair in _SINGULAR
        statement = f"{subject[:1].upper()}{subject[1:]}"
        losses = (
            f"on a fresh seed, the training loss is {self.before.train_score:.2f} before and "
            f"{self.after.train_score:.2f} after"
        )
        if self.after.lr != self.before.lr and "given" not in self.repairs:
            losses += f", at the learning rate {self.after.lr:.3g}"
        if self.helps:
            return f"{statement} {'helps' if is_singular else 'help'}: {losses}"
        negated = "does not help" if is_singular else "do not help"
        return f"{statement} {negated}: {losses}, and a gain of more than {MARGIN:g} is needed"

    def _text_of(self, repair: str) -> str:
        text = REPAIRS[repair]
        return f"{text} {self.after.lr:.3g}" if repair == "given" else text
