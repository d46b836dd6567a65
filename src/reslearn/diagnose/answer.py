"""The answer of a diagnosis in lines: the cause and what to change come first."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from reslearn.diagnose.advice import advice, rate_line
from reslearn.diagnose.diagnosis import Diagnosis
from reslearn.diagnose.findings import ScreeningFinding
from reslearn.diagnose.suspicion import leading_suspicion

THEN = "Then: "
"""Begins the line of a cause that came out after the first repair."""
_MORE_MINUTES = 4
"""An experiment that settles a suspicion gets so many times the minutes."""


def answer_lines(diagnosis: Diagnosis, command: Sequence[str] | None = None) -> list[str]:
    """Return the lines that a person reads first.

    The first line is the cause in plain words, with what to change. The second line is the
    evidence. If a finding of the screening agrees with the verdict, or if the verdict is undecided,
    the finding is the first line.

    Args:
        command: The command line that made the diagnosis. An undecided answer ends with a command
            that would settle the question.
    """
    verdict = diagnosis.verdict
    verdict_line = f"{verdict.name}: {verdict.reason}"
    rate = rate_line(diagnosis)
    leading = diagnosis.screening.leading
    if leading is not None and leading.level == "proof":
        if leading.causes == ("data fault",):
            return [verdict_line]
        return [leading.message, f"{verdict.name}: {leading.evidence}", *_further(diagnosis)]
    if verdict.name == "undecided":
        lines = _undecided_lines(diagnosis, verdict_line, command)
    elif leading is not None and verdict.name in leading.causes:
        lines = [leading.message, verdict_line, leading.evidence]
    else:
        lines = [advice(diagnosis), verdict_line]
        if leading is not None:
            lines.append(f"Not confirmed: before training, screening suspected: {leading.text}")
    return [line for line in (*lines, rate, *_further(diagnosis)) if line]


def leads_with_screening(diagnosis: Diagnosis) -> bool:
    """Return whether the first line of the answer is a finding of the screening."""
    leading, verdict = diagnosis.screening.leading, diagnosis.verdict
    if leading is None:
        return False
    return leading.level == "proof" or verdict.name in ("undecided", *leading.causes)


def _further(diagnosis: Diagnosis) -> list[str]:
    return [f"{THEN}{answer_lines(following)[0]}" for following in diagnosis.further]


def further_findings(diagnosis: Diagnosis) -> list[ScreeningFinding]:
    """Return the findings that are not part of the answer."""
    leading = diagnosis.screening.leading
    return [finding for finding in diagnosis.screening.findings if finding is not leading]


def settling_command(diagnosis: Diagnosis, command: Sequence[str] | None) -> str:
    """Return the command that would settle an undecided diagnosis: the same with more time."""
    minutes = f"{_MORE_MINUTES * diagnosis.minutes:g}"
    if command is None:
        return f"diagnose(problem, minutes={minutes})"
    words = []
    skips_value = False
    for word in command:
        name = word.partition("=")[0]
        if skips_value:
            skips_value = False
        elif name in ("--minutes", "--steps"):
            skips_value = "=" not in word
        else:
            words.append(word)
    return shlex.join([*words, "--minutes", minutes])


def _undecided_lines(
    diagnosis: Diagnosis, verdict_line: str, command: Sequence[str] | None
) -> list[str]:
    """Name the leading suspicion, what speaks against it, and the experiment that would decide."""
    leading = diagnosis.screening.leading
    suspicion = leading_suspicion(diagnosis.scores, diagnosis.verdict.suspicion)
    lines = []
    if leading is not None:
        lines += [f"Leading suspicion: {leading.message}", leading.evidence]
    elif suspicion is not None:
        lines += [f"Leading suspicion: {suspicion.cause}.", suspicion.evidence]
    else:
        lines.append("No cause is certain, and none is suspected.")
    lines.append(verdict_line)
    if suspicion is not None and leading is None:
        lines.append(f"Against it: {suspicion.against}")
    lines.append(f"To settle it: {settling_command(diagnosis, command)}")
    return lines
