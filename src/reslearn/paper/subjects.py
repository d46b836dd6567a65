"""Finished runs opened for analysis, and sentences about differences between paired runs. Claims share them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reslearn.paper import protocol
from reslearn.paper.claim import Outcome, Runs
from reslearn.study import Comparison, compare

if TYPE_CHECKING:
    from reslearn.analysis import Subject


def judged_subjects(evidence: Runs, model: str) -> "dict[int, Subject]":
    """The finished judged runs of a net by seed, ready to be looked into; those that diverged are missing."""
    from reslearn.analysis import Subject

    runs = {
        seed: protocol.judged_run(evidence, model, seed) for seed in evidence.budget.judge_seeds
    }
    return {
        seed: Subject.open(run, data_dir=evidence.data_dir)
        for seed, run in runs.items()
        if run is not None
    }


def unless_lost(outcome: Outcome, evidence: Runs, *models: str) -> Outcome:
    """The outcome, but "undecided" where a judged run of `models` diverged: no verdict may gain from what cannot be looked into."""
    lost = any(
        protocol.judged_run(evidence, model, seed) is None
        for model in models
        for seed in evidence.budget.judge_seeds
    )
    return "undecided" if lost else outcome


def rests_on(subjects: "Sequence[Subject]") -> tuple[str, ...]:
    """The names of the run folders."""
    return tuple(subject.folder.path.name for subject in subjects)


def paired(a: Sequence[float], b: Sequence[float]) -> Comparison:
    """mean(a) - mean(b) over seeds, with its 95 % interval of the paired t test."""
    return compare(a, b, paired=True)


def interval_text(comparison: Comparison, digits: int = 2) -> str:
    """ "+1.23 [+0.50, +1.96]"; without the interval where there are fewer than two pairs."""
    if comparison.interval is None:
        return f"{comparison.difference:+.{digits}f} (one seed: no interval)"
    low, high = comparison.interval
    return f"{comparison.difference:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
