"""Findings about a folder of images, in the order of their severity.

- error: training refuses the folder, or an accuracy measured on it cannot be trusted.
- warning: images are lost, or the network may learn something that was not intended.
- note: training works, but the user should know about it.

Each rule is a function of the facts that yields findings. `RULES` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

from reslearn.survey import class_rules, file_rules
from reslearn.survey.facts import FolderFacts
from reslearn.survey.finding import Finding, Severity

RULES: tuple[Callable[[FolderFacts], Iterator[Finding]], ...] = (
    file_rules.layout,
    file_rules.unreadable_files,
    class_rules.missing_classes,
    file_rules.files_left_out,
    file_rules.pictures_outside,
    class_rules.leaks,
    class_rules.label_conflicts,
    class_rules.repeated_images,
    class_rules.balance,
    class_rules.size_of_test_classes,
    file_rules.odd_files,
    file_rules.odd_shapes,
    file_rules.telling_forms,
)
_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "note": 2}


def judge(facts: FolderFacts) -> tuple[Finding, ...]:
    """Return all findings, the most serious first, and of equal severity in the order of rules."""
    findings = chain.from_iterable(rule(facts) for rule in RULES)
    return tuple(sorted(findings, key=lambda finding: _ORDER[finding.severity]))
