"""What there is to reproduce, what it takes, and what of it lies in results/: the lines of `reslearn paper list`. Needs no torch.

Hours are arithmetic over a rate.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reslearn.paper import protocol
from reslearn.paper.budgets import paper_budget
from reslearn.paper.claim import Budget, Runs
from reslearn.paper.claims import load_claims
from reslearn.paper.exhibiting import budget_of
from reslearn.paper.exhibits import NAMES, load_exhibit
from reslearn.paper.stages import jobs_of
from reslearn.runs import RunError, RunFolder
from reslearn.study import Job, training_macs

MACS_A_SECOND_TWO_CORES = 1.8e11
"""Two processes of one thread on two cores with bf16 trained resnet20 at 1,475 images a second together; AVX2 alone has a third of it."""
MACS_A_SECOND_ONE_GPU = 1.2e13
"""25 trainings of 20 to 110 layers on one H200, five at a time by its Multi-Process Service, evaluations and starts included (LOG.md)."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One table or figure. Hours are of the paper's own budget, None where nothing is trained; those of a GPU are `estimated` where its
    rate was measured on other nets. `committed`: (complete, needed) by budget."""

    name: str
    title: str
    section: str
    data: str
    num_runs: int
    hours_two_cores: float | None
    hours_one_gpu: float | None
    estimated: bool
    committed: dict[str, tuple[int, int]]


def inventory(results: Path | None) -> list[Item]:
    """Every table and figure, in the order of the paper. `results` is searched for complete runs, at any depth."""
    complete = (
        {}
        if results is None
        else {path.parent.name: path.parent for path in sorted(results.rglob("result.json"))}
    )
    return [_item(name, complete) for name in NAMES]


@dataclass(frozen=True, kw_only=True)
class ClaimsItem:
    """What the claims take by the paper's own budget. `committed`, by the place of a claims.json: its data, and how many of how many claims
    it judged shown."""

    num_runs: int
    hours_two_cores: float
    hours_one_gpu: float
    committed: dict[str, tuple[str, int, int]]


def claims_inventory(results: Path | None) -> ClaimsItem:
    """All claims together: they share their runs. Of the rates to choose among, the judged runs are counted at any one."""
    budget = paper_budget("full", "cifar10")
    evidence = Runs(budget=budget, runs={}, folder=Path("runs"), fit=lambda *given, steps: [])
    first = [condition for module in load_claims() for condition in module.conditions(budget)]
    jobs = {
        job.folder: job
        for job in jobs_of([*first, *protocol.judged_conditions(evidence)], budget, Path("runs"))
    }
    work = sum(training_macs(job.recipe) for job in jobs.values())
    places = [] if results is None else sorted(results.rglob("claims.json"))
    return ClaimsItem(
        num_runs=len(jobs),
        hours_two_cores=work / MACS_A_SECOND_TWO_CORES / 3600,
        hours_one_gpu=work / MACS_A_SECOND_ONE_GPU / 3600,
        committed={str(path.relative_to(results or path)): _judged(path) for path in places},
    )


def _judged(path: Path) -> tuple[str, int, int]:
    try:
        found = json.loads(path.read_bytes())
        outcomes = [claim["outcome"] for claim in found["claims"]]
        return str(found["data"]), outcomes.count("shown"), len(outcomes)
    except (ValueError, LookupError, TypeError) as error:
        raise RunError(f"{path}: not what `reslearn paper claims` writes ({error})") from None


def _item(name: str, complete: dict[str, Path]) -> Item:
    module = load_exhibit(name)
    data = {"none": None, "CIFAR-10": "cifar10", "ImageNet": "ILSVRC2012"}[module.EXHIBIT.data]
    budgets = (
        ("short", "full") if module.EXHIBIT.data == "ImageNet" else ("short", "medium", "full")
    )
    jobs = {budget: _jobs(budget_of(module, budget, data), name) for budget in budgets}
    work = sum(training_macs(job.recipe) for job in jobs["full"])
    return Item(
        name=name,
        title=module.EXHIBIT.title,
        section=module.EXHIBIT.section,
        data=module.EXHIBIT.data,
        num_runs=len(jobs["full"]),
        hours_two_cores=work / MACS_A_SECOND_TWO_CORES / 3600 if work else None,
        hours_one_gpu=work / MACS_A_SECOND_ONE_GPU / 3600 if work else None,
        estimated=module.EXHIBIT.data
        == "ImageNet",  # whose wider layers fill a GPU better: rather less
        committed={
            budget: (_count(listed, complete), len(listed))
            for budget, listed in jobs.items()
            if listed
        },
    )


def _jobs(budget: Budget, name: str) -> list[Job]:
    return jobs_of(load_exhibit(name).conditions(budget), budget, Path("runs"))


def _count(jobs: Iterable[Job], complete: dict[str, Path]) -> int:
    """Jobs of which a run of the same name, which holds the hash of its recipe, lies there."""
    return sum(
        job.folder.name in complete and RunFolder(complete[job.folder.name]).is_complete
        for job in jobs
    )
