"""Tables and figures in smoke form, from run folders that a stub engine wrote."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stub_engine import ERRORS, StubEngine, no_fit
from typer.testing import CliRunner

from reslearn import paper
from reslearn.cli import app
from reslearn.cli.paper import EXHIBITS
from reslearn.paper.exhibits import NAMES
from reslearn.paper.numbers import numbers, top5
from reslearn.paper.page import lines_table
from reslearn.paper.rules import is_papers_own
from reslearn.paper.trained import Trained
from reslearn.report import write_page
from reslearn.runs import RunFolder, write_analysis

IMAGENET = ("table2", "table3", "table4", "table5", "fig4")


def run_exhibit(
    name: str,
    folder: Path,
    *,
    data: str | None = None,
    engine: StubEngine | None = None,
    depths: tuple[int, ...] = (),
) -> paper.Report:
    """Run a table or figure on three seeds of digits, or of `data` if it needs ImageNet."""
    module = paper.load_exhibit(name)
    experiment = module.EXPERIMENT
    if experiment.data == "CIFAR-10":
        data = "digits"
    budget = paper.exhibit_budget(experiment, "smoke", data, depths=depths)
    budget = replace(budget, judge_seeds=(0, 1, 2))
    return paper.run_experiments(
        [module],
        budget,
        folder,
        engine=engine or StubEngine(),
        fit=no_fit,
        evaluate=no_evaluation,
    )


def no_evaluation(*arguments: Any, **options: Any) -> Any:
    raise AssertionError("there are no weights to evaluate")


def verdicts(report: paper.Report) -> dict[str, str]:
    return {line.what: line.outcome for line in report.results[0].lines}


def first_run(folder: Path, pattern: str) -> RunFolder:
    return RunFolder(sorted((folder / "runs").glob(pattern))[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exhibits")


@pytest.fixture(scope="module")
def reports(folder: Path) -> dict[str, paper.Report]:
    """All tables and figures in one folder."""
    return {name: run_exhibit(name, folder) for name in NAMES}


NUM_LINES = {
    "table1": 5,
    "table2": 4,
    "table3": 14,
    "table4": 10,
    "table5": 1,
    "table6": 13,
    "fig1": 2,
    "fig4": 2,
    "fig6": 3,
    "fig7": 3,
    "ambiguities": 16,
}


@pytest.mark.parametrize("name", NAMES)
def test_every_table_and_figure_has_its_lines_a_page_and_json(
    name: str, reports: dict[str, paper.Report], tmp_path: Path
) -> None:
    report = reports[name]
    lines = report.results[0].lines
    assert len(lines) == NUM_LINES[name]
    assert len(lines_table(lines).rows) == len(lines)
    record = json.loads(json.dumps(paper.exhibit_json(report), allow_nan=False))
    assert record["name"] == name and record["rule"]
    assert [line["what"] for line in record["lines"]] == [line.what for line in lines]
    page = paper.exhibit_page(report, command=["reslearn", "paper", name])
    html = write_page(page, tmp_path / name).read_text()
    assert report.experiments[0].text in html and lines[0].outcome in html


def test_the_command_line_has_all_of_them() -> None:
    assert tuple(EXHIBITS) == NAMES


def test_the_runs_of_the_stub_are_judged_by_the_rules(reports: dict[str, paper.Report]) -> None:
    assert verdicts(reports["fig1"]) == {
        "training error, plain-20 minus plain-8, is above 0": "shown",
        "test error, plain-20 minus plain-8, is above 0": "shown",
    }
    residual = (
        "training error of residual nets does not degrade: 20 layers minus the best shallower"
    )
    assert verdicts(reports["fig6"]) == {
        "training error of plain nets degrades: 20 layers minus the best shallower": "shown",
        residual: "shown",
        "test error of residual nets, 8 layers minus 20, is above 0": "shown",
    }
    assert verdicts(reports["fig7"]) == {
        "response, plain-8 minus ResNet-8, is above 0": "shown",
        "response, plain-20 minus ResNet-20, is above 0": "shown",
        "response, ResNet-8 minus ResNet-20, is above 0": "shown",
    }
    assert list(verdicts(reports["table1"]).values()) == ["reproduced"] * 5


def test_table_6_judges_parameters_and_no_errors_of_60_steps(
    reports: dict[str, paper.Report],
) -> None:
    table6 = verdicts(reports["table6"])
    depths = (8, 20, 32, 44, 56, 110, 1202)
    errors = [table6.pop(f"resnet{depth}, test error") for depth in depths]
    assert errors == ["not run here"] * 7
    assert list(table6.values()) == ["reproduced"] * 6
    assert reports["table6"].results[0].numbers["test_error_pct"]["resnet20"] == [
        ERRORS["resnet20"] + 0.1 * seed for seed in range(3)
    ]


def test_runs_are_shared_between_tables_and_figures(
    reports: dict[str, paper.Report], folder: Path
) -> None:
    num_runs = {name: len(report.trained.runs) for name, report in reports.items()}
    trained = {"table6": 6, "fig1": 6, "fig6": 12, "fig7": 12, "ambiguities": 36}
    assert num_runs == {**dict.fromkeys(NAMES, 0), **trained}
    assert len(list((folder / "runs").glob("*/result.json"))) == 12 + 33


@pytest.mark.parametrize("name", IMAGENET)
def test_without_imagenet_there_is_no_verdict(name: str, reports: dict[str, paper.Report]) -> None:
    lines = reports[name].results[0].lines
    assert [line.outcome for line in lines] == ["not run here"] * NUM_LINES[name]
    assert all(line.because.startswith("needs ImageNet") for line in lines)


def test_the_papers_numbers_stand_in_the_lines(reports: dict[str, paper.Report]) -> None:
    lines = {line.what: line.paper for line in reports["table3"].results[0].lines}
    assert lines["resnet152, top-5 error"] == top5("table3")["resnet152"] == 5.71
    assert lines["resnet152, top-1 error"] == numbers("table3")["resnet152"] == 21.43
    assert numbers("table6")["resnet110"] == 6.61


def test_a_stand_in_for_imagenet_is_named(tmp_path: Path) -> None:
    report = run_exhibit("fig4", tmp_path, data="photos")
    assert list(verdicts(report).values()) == ["shown", "shown"]
    assert report.results[0].notes == (
        "photos is a stand-in: it is not ImageNet, so its errors have no reason to agree with "
        "the paper's.",
    )


def test_a_failed_run_is_no_evidence(tmp_path: Path) -> None:
    engine = StubEngine({"plain20 lr=0.1 seed 1": "No space left on device"})
    report = run_exhibit("fig6", tmp_path, engine=engine)
    plain, residual, _ = report.results[0].lines
    assert (plain.outcome, residual.outcome) == ("undecided", "shown")
    assert plain.because == (
        "a run failed: plain20 lr=0.1 seed 1 to judge: No space left on device"
    )
    assert len(report.failures) == 1


def test_a_diverged_run_leaves_its_network_without_a_mean(tmp_path: Path) -> None:
    engine = StubEngine({"plain20 lr=0.1 seed 1": "the loss is nan"})
    report = run_exhibit("fig6", tmp_path, engine=engine)
    (note,) = report.notes
    assert note == "Diverged runs, without a mean in figures: plain20 lr=0.1 seed 1 to judge."
    panels: Any = report.results[0].figures[0]
    plain, _ = panels.figures
    means = {series.name: series.y for series in plain.series if "mean of 3 seeds" in series.name}
    assert all(math.isnan(y) for y in means["plain-20, test, mean of 3 seeds"])
    assert not any(math.isnan(y) for y in means["plain-8, test, mean of 3 seeds"])


def change_environment(run: RunFolder, **values: Any) -> None:
    """Change environment.json, as if the run had been trained there, and seal the run again."""
    environment = {**run.environment, **values}
    result = run.result if run.is_complete else None
    run._write_environment(run.recipe, environment)
    if result is not None:
        run.finish(result)


def test_only_the_images_of_cifar_10_reproduce_its_numbers(tmp_path: Path) -> None:
    environment = {"data": {"name": "cifar10", "fingerprint": "804876dd0acf5ac2"}}
    run = RunFolder.create(tmp_path / "run", {}, environment)
    experiment = paper.load_exhibit("fig1").EXPERIMENT
    budget = paper.exhibit_budget(experiment, "full", "cifar10")
    spec = paper.first_specs(experiment, budget)[0]
    trained = Trained(budget=budget, runs={spec: run}, folder=tmp_path, fit=no_fit)
    assert is_papers_own(trained)
    assert not is_papers_own(replace(trained, runs={}))
    assert not is_papers_own(replace(trained, budget=replace(budget, name="medium")))
    change_environment(run, data={"name": "cifar10", "fingerprint": "f00"})
    assert not is_papers_own(trained)


def test_runs_on_different_images_of_one_name_are_refused(tmp_path: Path) -> None:
    run_exhibit("fig1", tmp_path)
    run = first_run(tmp_path, "plain8-*")
    change_environment(run, data={"fingerprint": "f00"})
    with pytest.raises(
        ValueError, match=r"different images, all called digits \((f00 and | and f00)\)"
    ):
        run_exhibit("fig1", tmp_path)


def test_a_comparison_over_different_precisions_says_so(tmp_path: Path) -> None:
    assert run_exhibit("fig1", tmp_path).notes == ()
    run = first_run(tmp_path, "plain8-*")
    change_environment(run, numerics={"precision": "bf16"})
    (note,) = run_exhibit("fig1", tmp_path).notes
    assert note.startswith("Means and differences are over runs of different precision: ")
    assert "1 bf16" in note


def test_an_interval_of_another_confidence_shows_it(
    reports: dict[str, paper.Report], tmp_path: Path
) -> None:
    lines = run_exhibit("fig6", tmp_path, depths=(8, 20, 56)).results[0].lines
    assert paper.line_texts(lines[0])[-1].endswith("] (97.5 %)")
    assert "(97.5 %)" in lines[0].because
    assert paper.line_texts(lines[-1])[-1].endswith("]")
    # With two depths there is one difference, at 95 %.
    assert paper.line_texts(reports["fig6"].results[0].lines[0])[-1].endswith("]")


def test_the_texts_of_a_line(reports: dict[str, paper.Report]) -> None:
    lines = {line.what: line for line in reports["table6"].results[0].lines}
    paper_text, our_text, difference = paper.line_texts(lines["resnet20, test error"])
    assert (paper_text, our_text) == ("8.75 %", "1.10 ± 0.10 % [0.85, 1.35] (3)")
    assert difference == "-7.65 [-7.90, -7.40]"
    assert paper.line_texts(lines["resnet20, parameters"]) == (
        "0.27 × 10⁶",
        "0.270 × 10⁶",
        "-0.000",
    )
    assert paper.line_texts(lines["resnet110, test error"]) == ("6.61 %", "", "")


def test_responses_of_other_images_are_measured_anew(tmp_path: Path) -> None:
    run_exhibit("fig7", tmp_path)
    run = first_run(tmp_path, "plain8-*")
    write_analysis(run, "responses", {"images": 1, "layers": [{"standard_deviation": 9.0}]})
    # The run of the stub has no weights for it.
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        run_exhibit("fig7", tmp_path)


def test_only_the_ambiguity_that_moves_the_error_is_shown(
    reports: dict[str, paper.Report],
) -> None:
    outcomes = verdicts(reports["ambiguities"])
    assert [what for what, outcome in outcomes.items() if outcome == "shown"] == [
        "Nesterov momentum"
    ]
    assert [what for what, outcome in outcomes.items() if outcome == "not run here"] == [
        "stride in the 3x3 of a bottleneck",
        "warm-up of 400 steps, whatever the training error",
        "warm-up of an epoch, whatever the training error",
        "mean and deviation of ImageNet",
    ]
    assert list(outcomes.values()).count("not shown") == 11
    assert not reports["ambiguities"].contradicts_paper
    rows = [list(row) for row in reports["ambiguities"].results[0].tables[0].rows]
    assert ["Nesterov momentum", "0", 0.0, "2"] in rows


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fig6", "--depths", "20"], "fig6 compares at least 2 depths"),
        (["fig6", "--depths", "21,56"], "--depths 21: networks for CIFAR have 6n+2 layers"),
        (["fig6", "--depths", "twenty"], "--depths twenty: numbers of layers are needed"),
        (["table1", "--depths", "20,56"], "--depths has no effect in table1"),
        (["table1", "--data", "bogus"], "--data has no effect in table1"),
        (["table1", "--budget", "full"], "--budget has no effect in table1"),
        (["table5", "--seeds", "3"], "--seeds has no effect in table5"),
        (["ambiguities", "--depths", "20,56"], "--depths 20,56: ambiguities is about one network"),
        (["table6", "--budget", "huge"], "allowed are smoke, short, medium and full"),
        (["table2", "--budget", "medium"], "--budget medium: allowed are smoke, short and full"),
        (["table6", "--budget", "full", "--data", "digits"], "for digits take smoke or short"),
        (["fig1", "--data", "digts"], "did you mean 'digits'?"),
    ],
)
def test_bad_input_is_refused_before_any_training(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    error = CliRunner().invoke(app, ["paper", *arguments, "--out", str(tmp_path / "out")]).exception
    assert isinstance(error, ValueError) and words in str(error), error
    assert not (tmp_path / "out").exists()
