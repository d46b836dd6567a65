"""A survey as JSON. Paths are relative to the folder."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from reslearn.survey.facts import FolderFacts
from reslearn.survey.finding import Finding
from reslearn.survey.run import Survey

MAX_FILES = 100
"""Names of files in each list. The counts are of all files."""


def survey_json(survey: Survey) -> dict[str, Any]:
    """Return findings, advice and facts of a survey as values that JSON knows."""
    facts = survey.facts
    listing = facts.listing
    return {
        "folder": str(facts.folder),
        "layout": listing.layout,
        "splits_are_drawn": facts.is_drawn,
        "files": facts.num_files,
        "images": facts.num_images,
        "seconds": round(survey.seconds, 3),
        "findings": [_finding(finding, facts) for finding in survey.findings],
        "advice": [asdict(advice) for advice in survey.advice],
        "counts": facts.counts,
        "sizes": {name: asdict(values) for name, values in facts.sizes.items()},
        "formats": facts.formats,
        "modes": facts.modes,
        "shapes": [asdict(shape) for shape in facts.shapes],
        "center_crop_lost_pct": facts.lost_pct,
        "unreadable": _unreadable(facts),
        "left_out": [
            {"class": files.class_name, "suffix": files.suffix, "files": files.count}
            for files in listing.left_out
        ],
        "odd_files": {str(flag.name).lower(): odd.count for flag, odd in facts.odd.items()},
        "copies": _copies(facts),
    }


def _finding(finding: Finding, facts: FolderFacts) -> dict[str, Any]:
    examples = [_names(rows, facts) for rows in finding.examples[:MAX_FILES]]
    return asdict(finding) | {"examples": examples}


def _unreadable(facts: FolderFacts) -> dict[str, Any]:
    files = []
    for row, reason in list(facts.unreadable.items())[:MAX_FILES]:
        files.append({"path": facts.listing.name(row), "reason": reason})
    return {"count": facts.num_unreadable, "files": files}


def _copies(facts: FolderFacts) -> dict[str, Any]:
    copies = facts.copies
    groups = []
    for group in copies.groups[:MAX_FILES]:
        groups.append(asdict(group) | {"rows": _names(group.rows, facts)})
        groups[-1]["paths"] = groups[-1].pop("rows")
    return {
        "exact": copies.num_exact,
        "near": copies.num_near,
        "label_conflicts_exact": copies.num_conflicts_exact,
        "label_conflicts_near": copies.num_conflicts_near,
        "leaks": [asdict(leak) for leak in copies.leaks],
        "groups": groups,
        "search_is_complete": copies.search_is_complete,
    }


def _names(rows: tuple[int, ...], facts: FolderFacts) -> list[str]:
    return [facts.listing.name(row) for row in rows]
