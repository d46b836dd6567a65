"""A survey as lines of text: first the verdict, then findings and advice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from reslearn.survey.facts import ALL, FolderFacts
from reslearn.survey.finding import Finding, counted
from reslearn.survey.run import Survey
from reslearn.terminal import printable_line

_MAX_EXAMPLES = 3


def headline(survey: Survey) -> str:
    """Return what the folder holds, as in "90 images in 3 classes: train 72, test 18"."""
    facts = survey.facts
    classes = counted(len(facts.classes), "class", "classes")
    text = f"{counted(facts.num_images, 'image')} in {classes}"
    totals = {split: sum(numbers.values()) for split, numbers in facts.counts.items()}
    if set(totals) != {ALL}:
        text += ": " + ", ".join(f"{split} {total:,}" for split, total in totals.items())
        if facts.is_drawn:
            text += " (splits that training draws by content)"
    return text


def verdict(survey: Survey) -> str:
    """Return the number of findings by severity, as in "1 error, 2 warnings, 3 notes"."""
    numbers = Counter(finding.severity for finding in survey.findings)
    if not numbers:
        return "no findings"
    return ", ".join(counted(number, severity) for severity, number in numbers.items())


def example_lines(finding: Finding, facts: FolderFacts) -> Iterator[str]:
    """Yield the first files concerned; copies stand in one line with = between them."""
    for rows in finding.examples[:_MAX_EXAMPLES]:
        yield " = ".join(printable_line(facts.listing.name(row)) for row in rows)
    num_more = max(finding.count, len(finding.examples)) - _MAX_EXAMPLES
    if finding.examples and num_more > 0 and all(len(rows) == 1 for rows in finding.examples):
        yield f"and {num_more:,} more"
