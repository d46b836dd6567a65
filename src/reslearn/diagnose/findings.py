"""The result of screening: causes in plain words, what to change, and the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reslearn.diagnose.verdict_rules import VerdictName

Level = Literal["proof", "suspicion", "note"]
LEVELS: tuple[Level, ...] = ("proof", "suspicion", "note")


@dataclass(frozen=True, kw_only=True)
class ScreeningFinding:
    """A fault that is visible without training.

    Attributes:
        check: Identifies the check, for scripts.
        level: A "proof" shows the cause by construction, and nothing is trained. A "suspicion"
            points at a cause that the experiments must confirm. A "note" is often harmless.
        causes: The verdicts that would confirm the finding; empty for a note.
        message: The cause in plain words, and what to change.
        evidence: One sentence with the numbers.
        attribute: The attribute, module or parameter of the user's network, if there is one.
        location: FILE:LINE of the user's code, if it is known.
    """

    check: str
    level: Level
    causes: tuple[VerdictName, ...] = ()
    message: str
    evidence: str
    attribute: str = ""
    location: str = ""

    @property
    def text(self) -> str:
        """The message and the evidence."""
        return f"{self.message} {self.evidence}"


@dataclass(frozen=True, kw_only=True)
class Screening:
    """All findings on a problem, the most certain first.

    Attributes:
        failures: Checks that could not be made, each with its reason.
    """

    findings: tuple[ScreeningFinding, ...] = ()
    failures: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def proof(self) -> ScreeningFinding | None:
        """The first finding that shows the cause by construction."""
        return next((finding for finding in self.findings if finding.level == "proof"), None)

    @property
    def leading(self) -> ScreeningFinding | None:
        """The first finding that is not only a note."""
        return next((finding for finding in self.findings if finding.level != "note"), None)

    @property
    def signal(self) -> str:
        """What the initial weights do: "vanishing", "exploding", "equal units", or empty."""
        signals = {
            "equal units": "equal units",
            "signal that vanishes": "vanishing",
            "signal that explodes": "exploding",
        }
        checks = [finding.check for finding in self.findings]
        return next((signal for check, signal in signals.items() if check in checks), "")

    def lines(self) -> list[str]:
        """Return one line per finding, or one line that nothing is wrong."""
        if not self.findings:
            return [f"Screening: no fault is visible before training ({self.seconds:.1f} s)."]
        return [f"Screening, {finding.level}: {finding.text}" for finding in self.findings]


def ordered(findings: list[ScreeningFinding]) -> tuple[ScreeningFinding, ...]:
    """Return the findings by level; findings of one level keep their order."""
    return tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level)))


def finding_json(finding: ScreeningFinding) -> dict[str, Any]:
    """Return a finding as plain JSON values."""
    return {
        "check": finding.check,
        "level": finding.level,
        "causes": list(finding.causes),
        "message": finding.message,
        "evidence": finding.evidence,
        "attribute": finding.attribute,
        "location": finding.location,
    }


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: "1 layer", "2,000 layers"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def at(location: str) -> str:
    """Return the place as it follows a sentence: " (net.py:12)", or nothing if it is unknown."""
    return f" ({location})" if location else ""


def set_at(places: Sequence[str]) -> str:
    """Return the places of initial weights as they follow a sentence, or nothing without any."""
    return f" (they are set at {joined(places)})" if places else ""


def joined(places: Sequence[str]) -> str:
    """Return places as text, with each file once: "net.py:12, 13"."""
    lines_by_file: dict[str, list[str]] = {}
    for location in places:
        file, _, line = location.rpartition(":")
        lines_by_file.setdefault(file, []).append(line)
    return "; ".join(f"{file}:{', '.join(lines)}" for file, lines in lines_by_file.items())
