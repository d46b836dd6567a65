"""Orchestration without a training: an engine that writes run folders at once stands in. Deduplication, stages, resumption, failures."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reslearn import paper
from reslearn.paper import protocol
from reslearn.paper.budgets import exhibit_budget
from reslearn.paper.claim import Claim, Finding, Runs, RunSpec
from reslearn.paper.page import as_json
from reslearn.report import write_page
from reslearn.runs import RunFolder
from reslearn.study import Job
from reslearn.study.engine import JobStatus

BUDGET = replace(
    paper.demo(), depths=(8, 20, 56), learning_rates=(0.03, 0.1), judge_seeds=(0, 1, 2)
)
BEST = {
    "plain8": 0.1,
    "plain20": 0.03,
    "plain56": 0.03,
    "resnet8": 0.1,
    "resnet20": 0.1,
    "resnet56": 0.1,
}
ERROR = {
    "plain8": 2.0,
    "plain20": 9.0,
    "plain56": 60.0,
    "resnet8": 2.0,
    "resnet20": 1.0,
    "resnet56": 0.5,
}


class Stub:
    """Writes what a training would have written; `broken` maps parts of a job's name to what its log says last."""

    def __init__(self, broken: dict[str, str] | None = None, stop_after: int | None = None) -> None:
        self.names: list[str] = []
        self.broken, self.stop_after = broken or {}, stop_after

    def run(self, jobs: Sequence[Job]) -> list[JobStatus]:
        outcomes = []
        for job in jobs:
            reason = next(
                (reason for part, reason in self.broken.items() if part in job.name), None
            )
            if self.stop_after is not None and len(self.names) >= self.stop_after:
                outcomes.append(JobStatus(job=job, status="interrupted"))
            elif reason is not None:
                if reason.startswith("the loss is"):
                    run = RunFolder.create(
                        job.folder, job.recipe.to_dict(), {"numerics": {"threads": 1}}
                    )
                    run.write_json("diverged.json", {"step": 20, "reason": reason})
                outcomes.append(JobStatus(job=job, status="failed", reason=reason))
            else:
                self.names.append(job.name)
                _pretend(job)
                outcomes.append(JobStatus(job=job, status="complete"))
        return outcomes


def _pretend(job: Job) -> None:
    recipe = job.recipe.to_dict()
    recipe["model"]["num_classes"] = 10
    name, lr, seed = recipe["model"]["name"], recipe["optimizer"]["lr"], recipe["seed"]
    error = ERROR[name] + 0.1 * seed + (0 if lr == BEST[name] else 10)
    run = RunFolder.create(
        job.folder, recipe, {"numerics": {"threads": 1}, "versions": {"torch": "2"}}
    )
    for step in range(20, 541, 40):
        loss = 2.3 - (2.2 if name.startswith("resnet") else 1.0) * step / 540
        epoch = step / 45
        run.append_metrics(
            {
                "kind": "train",
                "step": step,
                "epoch": epoch,
                "loss": loss,
                "top1_error_pct": min(100.0, error + 10 * loss),
            }
        )
        run.append_metrics(
            {
                "kind": "test",
                "step": step,
                "epoch": epoch,
                "loss": loss,
                "top1_error_pct": min(100.0, error + 12 * loss),
            }
        )
    result = {
        protocol.TRAINING_ERROR: error,
        protocol.TRAINING_LOSS: error / 40,
        protocol.TEST_ERROR: error + 2,
    }
    run.finish(result)


def claims(*identifiers: str) -> list[Any]:
    return paper.load_claims(identifiers)


def run(tmp_path: Path, engine: Stub, *identifiers: str) -> paper.ClaimsReport:
    return paper.run_claims(
        claims(*identifiers), BUDGET, tmp_path, engine=engine, fit=lambda *args, **named: []
    )


def test_runs_are_shared_and_each_net_is_judged_at_its_best_learning_rate(tmp_path: Path) -> None:
    engine = Stub()
    report = run(tmp_path, engine, "C1", "C2", "C5", "C8")
    assert (
        len(engine.names) == 6 * 2 + 6 * 3
    )  # every net at two learning rates on one seed, then once a judged seed
    judged = [name for name in engine.names if name.endswith("to judge")]
    assert {name.split()[0]: float(name.split()[1].removeprefix("lr=")) for name in judged} == BEST
    assert [finding.outcome for finding in report.findings] == ["shown", "shown", "shown", "shown"]
    assert protocol.choose(report.evidence, "plain20").losses == pytest.approx(
        {0.03: (9 + 10) / 40, 0.1: (9 + 20) / 40}
    )


def test_only_what_a_claim_needs_is_trained(tmp_path: Path) -> None:
    engine = Stub()
    run(tmp_path, engine, "C5")
    assert {name.split()[0] for name in engine.names} == {"resnet8", "resnet20", "resnet56"}


def test_a_stopped_study_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(paper.StudyStopped, match="continue with"):
        run(tmp_path, Stub(stop_after=4), "C1")
    engine = Stub()
    report = run(tmp_path, engine, "C1")
    assert len(engine.names) == 3 * 2 + 3 * 3 - 4
    assert report.findings[0].outcome == "shown"


def test_a_run_that_diverged_is_evidence(tmp_path: Path) -> None:
    engine = Stub(
        broken={
            "plain56 lr=0.03 seed 100": "the loss is nan between steps 1 and 20; the last good checkpoint is x"
        }
    )
    report = run(tmp_path, engine, "C1")
    assert protocol.choose(report.evidence, "plain56").learning_rate == 0.1
    assert report.num_diverged == 1
    assert report.findings[0].outcome == "shown"


def test_a_run_that_failed_leaves_its_claims_undecided_and_the_others_judged(
    tmp_path: Path,
) -> None:
    report = run(
        tmp_path, Stub(broken={"plain20 lr=0.03 seed 2": "No space left on device"}), "C1", "C5"
    )
    assert [finding.outcome for finding in report.findings] == ["undecided", "shown"]
    assert (
        "plain20" in report.findings[0].measured and "No space left" in report.findings[0].measured
    )


def test_all_learning_rates_lost_takes_the_smallest(tmp_path: Path) -> None:
    report = run(tmp_path, Stub(broken={"plain56": "the loss is inf between steps 1 and 20"}), "C1")
    assert protocol.choose(report.evidence, "plain56").learning_rate == 0.03
    assert report.findings[0].outcome == "undecided"


def test_seeds_to_choose_on_are_not_those_to_judge_on() -> None:
    budgets = [
        paper.demo(),
        *(paper.paper_budget(name, "cifar10") for name in ("smoke", "short", "full")),
    ]
    for budget in budgets:
        assert not set(budget.choice_seeds) & set(budget.judge_seeds)
        assert list(budget.depths) == sorted(budget.depths)


def test_the_papers_warm_up_belongs_to_110_layers_only(tmp_path: Path) -> None:
    evidence = Runs(
        budget=paper.paper_budget("full", "cifar10"),
        runs={},
        folder=tmp_path,
        fit=lambda *args, **named: [],
    )
    warmed = {
        c.model
        for c in protocol.judged_conditions(evidence)
        if any("warm_up" in override for override in c.overrides)
    }
    assert warmed == {"resnet110"}


def test_conditions_of_one_run_are_one_whatever_they_are_for() -> None:
    assert RunSpec(model="plain20", seed=0, why="a") == RunSpec(model="plain20", seed=0, why="b")


def test_unknown_claims_and_budgets_are_told_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"no claim 'C15': there are C1, C2"):
        paper.load_claims(["C15"])
    with pytest.raises(ValueError, match="allowed are smoke, short and full"):
        paper.paper_budget("huge", "cifar10")


def test_the_page_holds_the_table_the_figures_and_the_numbers(tmp_path: Path) -> None:
    report = run(tmp_path, Stub(), "C1", "C2", "C4", "C5", "C7", "C8")
    page = write_page(paper.claims_page(report, command=["reslearn", "demo"]), tmp_path)
    html = page.read_text()
    assert "60.1 %" in html and "Deeper plain networks are harder to train" in html
    made = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert {
        "figure-1-training.png",
        "figure-1-test.png",
        "figure-6-plain.png",
        "figure-6-residual.png",
        "error-against-depth.png",
    } <= made
    told = json.loads(json.dumps(as_json(report), allow_nan=False))
    assert [one["claim"] for one in told["claims"]] == ["C1", "C2", "C4", "C5", "C7", "C8"]


def test_a_page_of_claims_without_training_is_a_page(tmp_path: Path) -> None:
    class Still:
        CLAIM = Claim(identifier="C99", text="Nothing is trained", section="-", rule="Shown.")

        def conditions(self, budget: paper.Budget) -> list[RunSpec]:
            return []

        def judge(self, evidence: Runs) -> Finding:
            return Finding(
                claim=self.CLAIM, outcome="shown", measured="nothing", numbers={"gap": float("nan")}
            )

    report = paper.run_claims(
        [Still()], BUDGET, tmp_path, engine=Stub(), fit=lambda *args, **named: []
    )
    assert write_page(paper.claims_page(report, command=["reslearn"]), tmp_path).is_file()
    assert as_json(report)["claims"][0]["numbers"] == {"gap": None}


@pytest.mark.parametrize(
    ("data", "recipe"), [("digits", "digits"), ("photos/digits", "cifar-short")]
)
def test_a_folder_called_digits_is_a_folder(data: str, recipe: str) -> None:
    assert (
        paper.paper_budget("short", data).recipe
        == exhibit_budget("short", data, depths=(8, 20)).recipe
        == recipe
    )
