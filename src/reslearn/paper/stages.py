"""Runs by condition: each trained once, however many claims, tables and figures need it, and what became of it remembered.

Called again in the same folder it goes on where it stopped: what is complete stays.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from reslearn.paper.claim import Budget, RunSpec
from reslearn.runs import RunFolder
from reslearn.study import (
    Engine,
    Job,
    StudyReport,
    grid,
    mixed_numerics,
    numerics_of,
    run_study,
    training_macs,
)


class StudyStopped(Exception):
    """A signal stopped the training; the text says how to go on."""


class Stages:
    """Trains conditions, remembers which runs there are, which diverged and which failed for another reason."""

    def __init__(
        self,
        budget: Budget,
        folder: Path,
        engine: Engine,
        arguments: Sequence[str],
        say: Callable[[str], None],
    ) -> None:
        self._budget, self._folder, self._engine, self._arguments, self._say = (
            budget,
            folder,
            engine,
            tuple(arguments),
            say,
        )
        self.runs: dict[RunSpec, RunFolder] = {}
        self.diverged: set[RunSpec] = set()
        self.failures: dict[RunSpec, str] = {}

    @property
    def settled(self) -> set[RunSpec]:
        """Those that need no training any more."""
        return {*self.runs, *self.diverged, *self.failures}

    def failure_lines(self) -> tuple[str, ...]:
        """What failed, a line each."""
        return tuple(
            f"{name_of(condition)}: {reason}" for condition, reason in self.failures.items()
        )

    def notes(self) -> tuple[str, ...]:
        """What a reader of their means must know."""
        mixed = mixed_numerics(numerics_of(run.environment) for run in self.runs.values())
        lost = [name_of(condition) for condition in self.diverged]
        told = f"Diverged, and without a mean in figures: {'; '.join(sorted(lost))}."
        return (
            *((f"Means and differences are over {mixed}.",) if mixed else ()),
            *((told,) if lost else ()),
        )

    def train(self, conditions: Iterable[RunSpec], what: str, continue_command: str | None) -> None:
        """Bring the conditions that are new to their end. Raises StudyStopped."""
        new = [
            condition for condition in dict.fromkeys(conditions) if condition not in self.settled
        ]
        jobs = dict(
            zip(new, jobs_of(new, self._budget, self._folder, self._arguments), strict=True)
        )
        if not jobs:
            return
        left = sum(not job.is_complete for job in jobs.values())
        self._say(
            f"{what}: {len(jobs)} runs"
            + (f", {len(jobs) - left} of them complete already" if left < len(jobs) else "")
        )
        unique = {job.folder: job for job in jobs.values()}
        report = run_study(
            list(unique.values()),
            self._folder,
            engine=self._engine,
            continue_command=continue_command,
        )
        if report.is_interrupted:
            raise StudyStopped("\n".join(report.lines()))
        self._remember(jobs, report)

    def _remember(self, jobs: dict[RunSpec, Job], report: StudyReport) -> None:
        reasons = {outcome.job.folder: outcome.reason for outcome in report.failed}
        for condition, job in jobs.items():
            if job.is_complete:
                self.runs[condition] = RunFolder.open(job.folder)
                for checkpoint in self.runs[condition].checkpoints():
                    checkpoint.unlink()  # hundreds of megabytes over all runs, and a complete one does not go on
                continue
            if RunFolder(job.folder).divergence is not None:
                self.diverged.add(condition)
            else:
                self.failures[condition] = reasons.get(job.folder, "no result")
        _check_same_images(self.runs.values())


def _check_same_images(runs: Iterable[RunFolder]) -> None:
    """ValueError where two runs name the same data, and trained on other images: a folder was changed between them."""
    first: dict[tuple[str, ...], tuple[str, RunFolder]] = {}
    for run in runs:
        named, fingerprint = (
            run.recipe.get("data", {}),
            str(run.environment.get("data", {}).get("fingerprint", "")),
        )
        before, other = first.setdefault(
            (str(named.get("name")), str(named.get("size_px"))), (fingerprint, run)
        )
        if before != fingerprint:
            raise ValueError(
                f"{run.path} and {other.path} are of different images, all called {named.get('name')} "
                f"({fingerprint} and {before}): use another --out"
            )


def jobs_of(
    conditions: Iterable[RunSpec], budget: Budget, folder: Path, arguments: Sequence[str] = ()
) -> list[Job]:
    """A job for each condition below `folder`; two conditions of the same recipe have the same folder."""
    jobs = []
    for condition in conditions:
        (job,) = grid(
            models=[condition.model],
            seeds=[condition.seed],
            recipe=budget.recipe,
            folder=folder,
            data=budget.data,
            overrides=[(*budget.overrides, *condition.overrides)],
            cost=training_macs,
            arguments=arguments,
        )
        jobs.append(replace(job, name=name_of(condition)))
    return jobs


def name_of(condition: RunSpec) -> str:
    """What is trained and why, for the display: of the settings only those that a reader tells runs apart by."""
    settings = [
        switch.partition("=")
        for switch in condition.overrides
        if switch.startswith(("optimizer.lr=", "model."))
    ]
    told = [f"{key.rpartition('.')[2]}={value}" for key, _, value in settings]
    return " ".join(filter(None, (condition.model, *told, f"seed {condition.seed}", condition.why)))
