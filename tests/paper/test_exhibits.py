"""Tables and figures of the paper: their rules outcome by outcome, and each in smoke form from run folders that a stand-in wrote."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reslearn import paper
from reslearn.cli import app
from reslearn.cli.exhibits import EXHIBITS
from reslearn.paper.claim import Runs
from reslearn.paper.exhibit import against_paper, degrades, exact, is_papers_own, rises
from reslearn.paper.exhibiting import lines_table, texts
from reslearn.paper.exhibits import NAMES
from reslearn.paper.numbers import numbers, top5
from reslearn.report import write_page
from reslearn.runs import RunFolder
from reslearn.study import Job, Spread, degradation_verdict
from reslearn.study.engine import JobStatus

ERROR = {
    "plain8": 12.0,
    "plain20": 30.0,
    "resnet8": 12.0,
    "resnet20": 9.0,
    "plain56": 50.0,
    "resnet56": 8.0,
    "plain18": 28.0,
    "plain34": 30.0,
    "resnet18": 28.0,
    "resnet34": 25.0,
}


class Stub:
    """Writes what a training would have written, weights aside; `failing` runs end without a result."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing

    def run(self, jobs: list[Job]) -> list[JobStatus]:
        outcomes = []
        for job in jobs:
            if any(part in job.folder.name for part in self.failing):
                outcomes.append(
                    JobStatus(job=job, status="failed", reason="No space left on device")
                )
                continue
            recipe = job.recipe.to_dict()
            name, seed = recipe["model"]["name"], recipe["seed"]
            error = ERROR[name] + 0.2 * seed + (0.5 if recipe["optimizer"]["nesterov"] else 0.0)
            run = RunFolder.create(
                job.folder, recipe, {"numerics": {"threads": 1}, "versions": {"torch": "2"}}
            )
            for step in (20, 40, 60):
                line = {
                    "step": step,
                    "epoch": step / 45,
                    "loss": 1.0,
                    "top1_error_pct": error + 60 - step,
                }
                run.append_metrics({"kind": "train", **line})
                run.append_metrics({"kind": "test", **line})
            response = (
                (1.0 if name.startswith("plain") else 0.5)
                - 0.001 * int("".join(filter(str.isdigit, name)))
                + 0.01 * seed
            )
            layers = [{"standard_deviation": response}, {"standard_deviation": response / 2}]
            errors = {"test_top1_error_pct": error, "train_recomputed_top1_error_pct": error}
            run.finish({**errors, "seconds": 1.0, "images": 150, "epochs": 3.0})
            run.write_analysis("responses", {"images": 50, "layers": layers})
            outcomes.append(JobStatus(job=job, status="complete"))
        return outcomes


def measured(
    name: str,
    folder: Path,
    *,
    data: str | None = None,
    engine: Stub | None = None,
    depths: tuple[int, ...] = (),
) -> Any:
    module = paper.load_exhibit(name)
    data = "digits" if module.EXHIBIT.data == "CIFAR-10" else data
    chosen = replace(paper.budget_of(module, "smoke", data, depths=depths), judge_seeds=(0, 1, 2))
    return paper.run_exhibit(
        module, chosen, folder, engine=engine or Stub(), fit=lambda *a, **b: [], evaluate=_evaluate
    )


def _evaluate(*arguments: Any, **named: Any) -> Any:
    raise AssertionError("nothing was trained, so that there is nothing to evaluate")


def verdicts(report: Any) -> dict[str, str]:
    return {line.what: line.outcome for line in report.measured.lines}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exhibits")


@pytest.fixture(scope="module")
def reports(folder: Path) -> dict[str, Any]:
    """All of them, in one folder."""
    return {name: measured(name, folder) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_table_and_figure_has_lines_a_page_and_json(
    name: str, reports: dict[str, Any], tmp_path: Path
) -> None:
    report = reports[name]
    assert report.measured.lines or report.measured.notes
    assert len(lines_table(report.measured.lines).rows) == len(report.measured.lines)
    told = json.loads(json.dumps(paper.exhibit_json(report), allow_nan=False))
    assert told["name"] == name and told["rule"]
    page = write_page(
        paper.exhibit_page(report, command=["reslearn", "paper", name]), tmp_path / name
    )
    assert report.exhibit.title in page.read_text()


def test_the_command_line_has_every_one_of_them() -> None:
    assert tuple(EXHIBITS) == NAMES


def test_what_the_stand_in_trained_is_judged_by_the_rules(reports: dict[str, Any]) -> None:
    assert verdicts(reports["fig1"]) == {
        "training error, plain-20 minus plain-8, is above 0": "shown",
        "test error, plain-20 minus plain-8, is above 0": "shown",
    }
    assert verdicts(reports["fig6"]) == {
        "training error of plain nets degrades: 20 layers minus the best shallower": "shown",
        "training error of residual nets does not degrade: 20 layers minus the best shallower": "shown",
        "test error of residual nets, 8 layers minus 20, is above 0": "shown",
    }
    assert set(verdicts(reports["fig7"]).values()) == {"shown"}
    table6 = verdicts(reports["table6"])
    errors = [table6.pop(f"resnet{depth}, test error") for depth in (8, 20, 32, 44, 56, 110, 1202)]
    assert set(errors) == {
        "not run here"
    }  # 60 steps of digits have no reason to agree, and the others were not trained
    assert set(table6.values()) == {"reproduced"}
    assert set(verdicts(reports["table1"]).values()) == {"reproduced"}


def test_runs_are_shared_between_tables_and_figures(reports: dict[str, Any], folder: Path) -> None:
    assert sum(report.num_runs for report in reports.values()) == 6 + 12 + 12 + 6 + 36
    assert len(list((folder / "runs").glob("*/result.json"))) == 12 + 33


def test_what_needs_imagenet_is_said_and_never_faked(reports: dict[str, Any]) -> None:
    for name in ("table2", "table3", "table4", "table5", "fig4"):
        assert all(
            line.because.startswith("needs ImageNet") for line in reports[name].measured.lines
        )
        assert {line.outcome for line in reports[name].measured.lines} <= {"not run here"}
    assert {line.what: line.paper for line in reports["table3"].measured.lines}[
        "resnet152, top-5 error"
    ] == 5.71


def test_what_a_stand_in_for_imagenet_shows_is_not_the_papers(tmp_path: Path) -> None:
    report = measured("fig4", tmp_path, data="photos")
    assert set(verdicts(report).values()) == {"shown"}
    assert report.measured.notes == (
        "photos is a stand-in: it is not ImageNet, so that its errors have no reason to agree with the paper's.",
    )


def test_a_run_that_failed_is_no_evidence(tmp_path: Path) -> None:
    report = measured("fig6", tmp_path, engine=Stub("plain20-lr0.1-seed1", "plain20-seed1"))
    (plain, residual, gain) = report.measured.lines
    assert (plain.outcome, residual.outcome, gain.outcome) == ("undecided", "shown", "shown")
    assert (
        "1 run(s) failed, as plain20" in plain.because
        and "No space left on device" in plain.because
    )


def test_a_run_that_diverged_leaves_its_net_without_a_mean_and_is_told(tmp_path: Path) -> None:
    measured("fig6", tmp_path)
    lost = RunFolder(next((tmp_path / "runs").glob("plain20-*seed1-*")))
    (lost.path / "result.json").unlink()
    lost.write_json("diverged.json", {"step": 20, "reason": "the loss is nan"})
    report = measured("fig6", tmp_path, engine=Stub(lost.path.name))
    assert any(
        note.startswith("Diverged, and without a mean in figures: plain20 ") and "seed 1" in note
        for note in report.measured.notes
    )
    plain, _ = report.measured.figures[0].figures
    means = {series.name: series.y for series in plain.series if "mean of 3 seeds" in series.name}
    assert all(math.isnan(y) for y in means["plain-20, test, mean of 3 seeds"])
    assert not any(math.isnan(y) for y in means["plain-8, test, mean of 3 seeds"])


def test_only_the_images_of_cifar_10_reproduce_its_numbers(tmp_path: Path) -> None:
    run = RunFolder.create(
        tmp_path / "run", {}, {"data": {"name": "cifar10", "fingerprint": "804876dd0acf5ac2"}}
    )
    budget = paper.budget_of(paper.load_exhibit("fig1"), "full", "cifar10")
    condition = paper.load_exhibit("fig1").conditions(budget)[0]

    evidence = Runs(budget=budget, runs={condition: run}, folder=tmp_path, fit=lambda *a, **b: [])
    assert is_papers_own(evidence) and not is_papers_own(replace(evidence, runs={}))
    run.write_json("environment.json", {"data": {"name": "cifar10", "fingerprint": "f00"}})
    assert not is_papers_own(evidence)


def test_runs_of_other_images_under_the_same_name_are_refused(tmp_path: Path) -> None:
    measured("fig1", tmp_path)
    run = RunFolder(next((tmp_path / "runs").glob("plain8-*")))
    run.write_json("environment.json", {**run.environment, "data": {"fingerprint": "f00"}})
    with pytest.raises(
        ValueError, match=r"are of different images, all called digits \((f00 and | and f00)\)"
    ):
        measured("fig1", tmp_path)


def test_what_is_compared_over_runs_of_different_precision_says_so(tmp_path: Path) -> None:
    assert not measured("fig1", tmp_path).measured.notes
    run = RunFolder(next((tmp_path / "runs").glob("plain8-*")))
    run.write_json("environment.json", {**run.environment, "numerics": {"precision": "bf16"}})
    (note,) = measured("fig1", tmp_path).measured.notes
    assert (
        note.startswith("Means and differences are over runs of different precision: ")
        and "1 bf16" in note
    )


def test_an_interval_at_another_confidence_says_at_which(
    reports: dict[str, Any], tmp_path: Path
) -> None:
    report = measured("fig6", tmp_path, depths=(8, 20, 56))
    degrading, rising = report.measured.lines[0], report.measured.lines[-1]
    assert texts(degrading)[-1].endswith("] (97.5 %)") and "] (97.5 %)" in degrading.because
    assert texts(rising)[-1].endswith("]")
    assert texts(reports["fig6"].measured.lines[0])[-1].endswith(
        "]"
    )  # of two depths it is one difference, at 95 %


def test_a_fall_is_not_told_how_many_seeds_would_show_a_rise() -> None:
    fall, rise = (
        rises("", [sign * value for value in (9.0, -1.0, 4.0)], same_protocol=False)
        for sign in (-1, 1)
    )
    assert (fall.outcome, rise.outcome) == ("undecided", "undecided")
    assert "seeds" not in fall.because and rise.because.endswith(
        "to tell 4 points from 0 takes 15 seeds (power 80 %)"
    )


def test_responses_of_other_images_are_not_taken_for_the_figures(tmp_path: Path) -> None:
    measured("fig7", tmp_path)
    run = RunFolder(next((tmp_path / "runs").glob("plain8-*")))
    run.write_analysis("responses", {"images": 1, "layers": [{"standard_deviation": 9.0}]})
    with pytest.raises(
        ValueError, match=r"model\.safetensors"
    ):  # looked at anew, for which this one has no weights
        measured("fig7", tmp_path)


def test_an_ambiguity_that_moves_the_error_is_shown_and_the_others_are_not(
    reports: dict[str, Any],
) -> None:
    report = reports["ambiguities"]
    found = verdicts(report)
    assert found.pop("Nesterov momentum") == "shown"
    assert found.pop("best epoch on the test set (wrong) instead of the last") == "not shown"
    assert found["stride in the 3x3 of a bottleneck"] == "not run here"
    assert {outcome for name, outcome in found.items() if "=" not in name} == {
        "not shown",
        "not run here",
    }
    assert ["Nesterov momentum", "0", 0.0, "2"] in [
        list(row) for row in report.measured.tables[0].rows
    ]


def test_a_table_against_the_papers_number() -> None:
    def outcome(*values: float, same_protocol: bool = True) -> str:
        return against_paper("resnet20", values, 8.75, same_protocol=same_protocol).outcome

    assert outcome(8.7, 8.8, 8.75) == "reproduced"
    assert outcome(9.7, 9.8, 9.75) == "not reproduced"
    assert outcome(7.7, 7.8, 7.75) == "not reproduced"
    assert outcome(8.0, 9.0, 10.0) == "undecided"
    assert outcome(8.75) == "undecided"
    assert outcome(8.7, 8.8, 8.75, math.nan) == "undecided"
    assert outcome(8.7, 8.8, 8.75, same_protocol=False) == "not run here"
    assert outcome() == "not run here"


def test_a_papers_number_that_is_a_mean_of_runs_has_a_spread_of_its_own() -> None:
    close = (6.2, 6.25, 6.3)
    assert against_paper("resnet110", close, 6.61, same_protocol=True).outcome == "reproduced"
    assert (
        against_paper("resnet110", close, 6.61, same_protocol=True, spread=Spread(0.16, 5)).outcome
        == "undecided"
    )


def test_a_rise_that_the_papers_picture_shows() -> None:
    def outcome(*differences: float, same_protocol: bool = True) -> str:
        return rises("", differences, same_protocol=same_protocol).outcome

    assert outcome(5.0, 6.0, 7.0) == "reproduced"
    assert outcome(0.1, 0.2, 0.15) == "not reproduced"
    assert outcome(-5.0, -6.0, -7.0) == "not reproduced"
    assert (
        outcome(-5.0, 6.0, 7.0) == outcome(5.0) == outcome(5.0, 6.0, 7.0, math.nan) == "undecided"
    )
    assert outcome(5.0, 6.0, 7.0, same_protocol=False) == "shown"
    assert outcome(0.1, 0.2, 0.15, same_protocol=False) == "not shown"


def test_a_degradation_verdict_is_read_against_what_the_paper_says() -> None:
    rows = [
        (depth, seed, error + 0.1 * seed)
        for depth, error in ((20, 5.0), (56, 20.0))
        for seed in range(3)
    ]
    verdict = degradation_verdict(rows, margin_pct=1.0)
    assert degrades("", verdict, paper_says="yes", same_protocol=True).outcome == "reproduced"
    assert degrades("", verdict, paper_says="no", same_protocol=True).outcome == "not reproduced"
    assert degrades("", verdict, paper_says="no", same_protocol=False).outcome == "not shown"
    assert degrades("", verdict, paper_says="yes", same_protocol=True).difference == pytest.approx(
        15
    )


def test_an_exact_number_agrees_to_its_last_digit() -> None:
    assert exact("", "10^9", 3.858, 3.8, within=0.1).outcome == "reproduced"
    assert exact("", "10^9", 4.089, 3.8, within=0.1).outcome == "not reproduced"
    assert exact("", "10^6", 1.75, 1.7, within=0.05).outcome == "reproduced"
    assert exact("", "10^6", 1.799, 1.7, within=0.05).outcome == "not reproduced"


def test_runs_that_all_gave_one_number_reproduce_nothing() -> None:
    line = against_paper("", [8.9, 8.9], 8.75, same_protocol=True)
    assert (line.outcome, line.because) == ("undecided", "2 runs gave the very same number")


def test_the_papers_numbers_are_there() -> None:
    assert numbers("table6")["resnet110"] == 6.61
    assert numbers("table3")["resnet152"] == 21.43 and top5("table3")["resnet152"] == 5.71


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fig6", "--depths", "20"], "fig6 compares at least 2"),
        (["fig6", "--depths", "21,56"], "--depths 21: nets for CIFAR have 6n+2 layers"),
        (["fig6", "--depths", "twenty"], "--depths twenty: numbers of layers are needed"),
        (["table1", "--depths", "20,56"], "--depths has no effect in table1"),
        (["table1", "--data", "bogus"], "--data has no effect in table1"),
        (["table1", "--budget", "full"], "--budget has no effect in table1"),
        (["table5", "--seeds", "3"], "--seeds has no effect in table5"),
        (["ambiguities", "--depths", "20,56"], "--depths 20,56: ambiguities is of one net"),
        (
            ["table6", "--budget", "huge"],
            "--budget huge: allowed are smoke, short, medium and full",
        ),
        (["table6", "--budget", "full", "--data", "digits"], "for digits take smoke or short"),
        (["fig1", "--data", "digts"], "did you mean 'digits'?"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_trained(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    error = CliRunner().invoke(app, ["paper", *arguments, "--out", str(tmp_path / "out")]).exception
    assert isinstance(error, ValueError) and words in str(error), error
    assert not (tmp_path / "out").exists()
