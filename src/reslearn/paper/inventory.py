"""What there is to reproduce, what it costs, and which runs of it exist. Needs no torch.

Hours are multiply-adds divided by a measured rate.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reslearn.paper.budgets import claims_budget, exhibit_budget
from reslearn.paper.claims import load_claims
from reslearn.paper.exhibits import NAMES, load_exhibit
from reslearn.paper.experiment import BOTH, Experiment, RunSpec
from reslearn.paper.run import jobs_of
from reslearn.paper.trained import first_specs, specs_at_rate
from reslearn.runs import RunError, RunFolder
from reslearn.study import Job, training_macs

MACS_PER_SECOND_TWO_CORES = 1.8e11
"""Two processes on two cores with bf16 trained resnet20 at 1,475 images per second together.

Cores with AVX2 alone reach a third of it.
"""
MACS_PER_SECOND_ONE_GPU = 1.2e13
"""25 trainings of 20 to 110 layers on one H200, five at a time, with its Multi-Process Service.

The time includes evaluations and starts.
"""


@dataclass(frozen=True, kw_only=True)
class ExhibitItem:
    """One table or figure.

    Attributes:
        num_runs: Number of runs of the paper's own budget.
        hours_two_cores, hours_one_gpu: Hours of the paper's own budget; None if nothing is trained.
        estimated: The GPU's rate was measured on other networks.
        committed: Number of complete runs and of needed runs, by budget.
    """

    name: str
    title: str
    section: str
    data: str
    num_runs: int
    hours_two_cores: float | None
    hours_one_gpu: float | None
    estimated: bool
    committed: dict[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class ClaimsItem:
    """All claims together, at the paper's own budget.

    Attributes:
        committed: By path of a claims.json: its data, the number of claims that it shows, and the
            number of its claims.
    """

    num_runs: int
    hours_two_cores: float
    hours_one_gpu: float
    committed: dict[str, tuple[str, int, int]]


def inventory(results: Path | None) -> list[ExhibitItem]:
    """Return every table and figure, in the order of the paper.

    Args:
        results: Folder that is searched for complete runs, at any depth.
    """
    complete = {}
    if results is not None:
        complete = {path.parent.name: path.parent for path in sorted(results.rglob("result.json"))}
    return [_exhibit_item(load_exhibit(name).EXPERIMENT, complete) for name in NAMES]


def claims_inventory(results: Path | None) -> ClaimsItem:
    """Return the cost of all claims together. They share their runs.

    The learning rates are unknown before training, so the judged runs are counted at one of the
    candidates.
    """
    budget = claims_budget("full", "cifar10")
    specs: list[RunSpec] = []
    for module in load_claims():
        specs += first_specs(module.EXPERIMENT, budget)
    specs += specs_at_rate(budget, BOTH, budget.learning_rates[0])
    jobs = {job.folder: job for job in jobs_of(specs, budget, Path("runs"))}
    macs = sum(training_macs(job.recipe) for job in jobs.values())
    places = [] if results is None else sorted(results.rglob("claims.json"))
    return ClaimsItem(
        num_runs=len(jobs),
        hours_two_cores=macs / MACS_PER_SECOND_TWO_CORES / 3600,
        hours_one_gpu=macs / MACS_PER_SECOND_ONE_GPU / 3600,
        committed={str(path.relative_to(results or path)): _judged(path) for path in places},
    )


def _judged(path: Path) -> tuple[str, int, int]:
    try:
        record = json.loads(path.read_bytes())
        outcomes = [claim["outcome"] for claim in record["claims"]]
        return str(record["data"]), outcomes.count("shown"), len(outcomes)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise RunError(
            f"{path} was not written by `reslearn paper claims` ({error}): remove it from the "
            "folder of results"
        ) from None


def _exhibit_item(experiment: Experiment, complete: dict[str, Path]) -> ExhibitItem:
    data = {"none": None, "CIFAR-10": "cifar10", "ImageNet": "ILSVRC2012"}[experiment.data]
    is_imagenet = experiment.data == "ImageNet"
    names = ("short", "full") if is_imagenet else ("short", "medium", "full")
    jobs = {name: _jobs(experiment, name, data) for name in names}
    macs = sum(training_macs(job.recipe) for job in jobs["full"])
    return ExhibitItem(
        name=experiment.name,
        title=experiment.text,
        section=experiment.section,
        data=experiment.data,
        num_runs=len(jobs["full"]),
        hours_two_cores=macs / MACS_PER_SECOND_TWO_CORES / 3600 if macs else None,
        hours_one_gpu=macs / MACS_PER_SECOND_ONE_GPU / 3600 if macs else None,
        estimated=is_imagenet,
        committed={
            name: (_num_complete(jobs[name], complete), len(jobs[name]))
            for name in names
            if jobs[name]
        },
    )


def _jobs(experiment: Experiment, budget_name: str, data: str | None) -> list[Job]:
    budget = exhibit_budget(experiment, budget_name, data)
    return jobs_of(first_specs(experiment, budget), budget, Path("runs"))


def _num_complete(jobs: Iterable[Job], complete: dict[str, Path]) -> int:
    """Count the jobs with a complete run of the same folder name, which has the recipe's hash."""
    names = [job.folder.name for job in jobs]
    return sum(name in complete and RunFolder(complete[name]).is_complete for name in names)
