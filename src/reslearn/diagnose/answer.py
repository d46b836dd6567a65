"""The answer of a diagnosis in lines: the cause and what to change come first."""

from __future__ import annotations

from reslearn.diagnose.diagnosis import Diagnosis
from reslearn.diagnose.findings import ScreeningFinding


def answer_lines(diagnosis: Diagnosis) -> list[str]:
    """Return the lines that a person reads first.

    The first line is a finding of the screening if it agrees with the verdict, or if the verdict is
    undecided. Else it is the verdict, and findings that the experiments did not confirm follow it.
    """
    verdict = diagnosis.verdict
    verdict_line = f"{verdict.name}: {verdict.reason}"
    leading = diagnosis.screening.leading
    if leading is None:
        return [verdict_line]
    if leading.level == "proof":
        if leading.causes == ("data fault",):
            return [verdict_line]
        return [leading.message, f"{verdict.name}: {leading.evidence}"]
    if verdict.name in leading.causes:
        return [leading.message, leading.evidence, verdict_line]
    if verdict.name == "undecided":
        return [f"Leading suspicion: {leading.message}", leading.evidence, verdict_line]
    return [verdict_line, f"Not confirmed: before training, screening suspected: {leading.text}"]


def further_findings(diagnosis: Diagnosis) -> list[ScreeningFinding]:
    """Return the findings that are not part of the answer."""
    leading = diagnosis.screening.leading
    return [finding for finding in diagnosis.screening.findings if finding is not leading]
