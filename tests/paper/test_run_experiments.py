"""Running experiments without a training: shared runs, two stages, resumption, lost runs."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stub_engine import BEST_RATES, StubEngine, no_fit

from reslearn import paper
from reslearn.paper.experiment import BOTH, Experiment, Line, Result, RunSpec
from reslearn.paper.trained import Trained
from reslearn.report import write_page
from reslearn.runs import RunFolder

BUDGET = replace(
    paper.demo(), depths=(8, 20, 56), learning_rates=(0.03, 0.1), judge_seeds=(0, 1, 2)
)
RATES = {**dict.fromkeys(("resnet8", "resnet20", "resnet56"), 0.1), **BEST_RATES}


def engine(broken: dict[str, str] | None = None, **options: Any) -> StubEngine:
    return StubEngine(broken, best_rates=RATES, **options)


def run(
    folder: Path, engine: StubEngine, *claims: str, budget: paper.Budget = BUDGET
) -> paper.Report:
    modules = paper.load_claims(claims)
    return paper.run_experiments(modules, budget, folder, engine=engine, fit=no_fit)


def outcomes(report: paper.Report) -> list[str | None]:
    return [result.outcome for result in report.results]


def test_runs_are_shared_and_each_network_is_judged_at_its_best_rate(tmp_path: Path) -> None:
    stub = engine()
    report = run(tmp_path, stub, "C1", "C2", "C5", "C8")
    # Every network at two rates on one seed, then at its best rate on three seeds.
    assert len(stub.names) == 6 * 2 + 6 * 3
    judged = [name.split() for name in stub.names if name.endswith("to judge")]
    assert {model: float(rate.removeprefix("lr=")) for model, rate, *_ in judged} == RATES
    assert outcomes(report) == ["shown", "shown", "shown", "shown"]
    losses = report.trained.choice_losses("plain20")
    assert losses == pytest.approx({0.03: (9 + 10) / 40, 0.1: (9 + 20) / 40})


def test_a_result_is_read_once_and_a_rate_is_chosen_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = ["C1", "C2", "C5", "C7", "C8"]
    run(tmp_path, engine(), *claims)
    reads: Counter[str] = Counter()
    choices: Counter[tuple[str, float]] = Counter()
    read_result = RunFolder.result.fget
    mean_loss = Trained._mean_choice_loss

    def counted_result(run: RunFolder) -> Any:
        reads[run.path.name] += 1
        assert read_result is not None
        return read_result(run)

    def counted_loss(trained: Trained, model: str, rate: float) -> float:
        choices[model, rate] += 1
        return mean_loss(trained, model, rate)

    monkeypatch.setattr(RunFolder, "result", property(counted_result))
    monkeypatch.setattr(Trained, "_mean_choice_loss", counted_loss)
    run(tmp_path, engine(), *claims)
    assert len(reads) == 30 and set(reads.values()) == {1}
    assert len(choices) == 12 and set(choices.values()) == {1}


def test_only_the_runs_of_the_given_claims_are_trained(tmp_path: Path) -> None:
    stub = engine()
    run(tmp_path, stub, "C5")
    assert {name.split()[0] for name in stub.names} == {"resnet8", "resnet20", "resnet56"}


def test_a_stopped_study_resumes(tmp_path: Path) -> None:
    with pytest.raises(paper.StudyStopped, match="4 of 6 runs complete") as stopped:
        run(tmp_path, engine(stop_after=4), "C1")
    assert stopped.value.exit_status == 143
    stub = engine()
    report = run(tmp_path, stub, "C1")
    assert len(stub.names) == 3 * 2 + 3 * 3 - 4
    assert outcomes(report) == ["shown"]


def test_a_diverged_run_is_evidence(tmp_path: Path) -> None:
    reason = "the loss is nan between steps 1 and 20; the last good checkpoint is x"
    report = run(tmp_path, engine({"plain56 lr=0.03 seed 100": reason}), "C1")
    assert report.trained.learning_rate("plain56") == 0.1
    assert len(report.trained.diverged) == 1 and not report.failures
    assert outcomes(report) == ["shown"]


def test_a_failed_run_leaves_only_its_claims_undecided(tmp_path: Path) -> None:
    stub = engine({"plain20 lr=0.03 seed 2": "No space left on device"})
    report = run(tmp_path, stub, "C1", "C5")
    assert outcomes(report) == ["undecided", "shown"]
    assert report.results[0].measured == "run plain20, seed 2 failed: No space left on device"
    assert report.failures == ("plain20 lr=0.03 seed 2 to judge: No space left on device",)


def test_without_a_finished_choice_the_smallest_rate_is_taken(tmp_path: Path) -> None:
    report = run(tmp_path, engine({"plain56": "the loss is inf between steps 1 and 20"}), "C1")
    assert report.trained.learning_rate("plain56") == 0.03
    assert outcomes(report) == ["undecided"]


def test_a_claim_that_lacks_depths_is_not_testable(tmp_path: Path) -> None:
    budget = replace(BUDGET, depths=(8, 20))
    report = run(tmp_path, engine(), "C1", "C7", budget=budget)
    assert outcomes(report) == ["shown", "not testable here"]
    assert "at least 3" in report.results[1].measured


def test_seeds_of_choices_and_of_verdicts_are_disjoint() -> None:
    names = ("smoke", "short", "full")
    for budget in (paper.demo(), *(paper.claims_budget(name, "cifar10") for name in names)):
        assert not set(budget.choice_seeds) & set(budget.judge_seeds)
        assert list(budget.depths) == sorted(budget.depths)


def test_only_110_layers_have_the_papers_warm_up(tmp_path: Path) -> None:
    budget = paper.claims_budget("full", "cifar10")
    trained = Trained(budget=budget, folder=tmp_path, fit=no_fit)
    settings = {spec.model: spec.overrides for spec in trained.judged_specs(BOTH)}
    assert settings["resnet56"] == ("optimizer.lr=0.03",)
    warmed_up = [model for model, given in settings.items() if "warm_up" in " ".join(given)]
    assert warmed_up == ["resnet110"]


def test_the_purpose_of_a_run_does_not_distinguish_it() -> None:
    assert RunSpec(model="plain20", seed=0, why="a") == RunSpec(model="plain20", seed=0, why="b")


def test_unknown_claims_and_budgets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no claim 'C15'; allowed are C1, C2"):
        paper.load_claims(["C15"])
    with pytest.raises(ValueError, match="allowed are smoke, short and full"):
        paper.claims_budget("huge", "cifar10")


def test_the_page_has_the_table_the_figures_and_the_numbers(tmp_path: Path) -> None:
    claims = ["C1", "C2", "C4", "C5", "C7", "C8"]
    report = run(tmp_path, engine(), *claims)
    page = write_page(paper.claims_page(report, command=["reslearn", "demo"]), tmp_path)
    html = page.read_text()
    assert "60.1 %" in html and "Deeper plain networks are harder to train" in html
    lead, first_section = 'id="figure-error-against-depth"', 'id="section-1"'
    assert html.index(lead) < html.index(first_section)
    figures = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert figures >= {
        "figure-1-training.png",
        "figure-1-test.png",
        "figure-6-plain.png",
        "figure-6-residual.png",
        "error-against-depth.png",
        "steps-to-half-loss.png",
    }
    record = json.loads(json.dumps(paper.claims_json(report), allow_nan=False))
    assert [claim["claim"] for claim in record["claims"]] == claims
    assert record["claims"][0]["rests_on"] == ["plain8", "plain20", "plain56"]
    assert record["claims"][5]["rests_on"] == ["plain8", "plain56"]


class UntrainedClaim:
    """A claim that needs no runs, with an outcome of choice."""

    def __init__(self, outcome: Any, *, is_open: bool = False) -> None:
        self.outcome = outcome
        self.EXPERIMENT = Experiment(
            name="C99", text="Nothing is trained", section="-", rule="Shown.", is_open=is_open
        )

    def measure(self, trained: Trained) -> Result:
        return Result(outcome=self.outcome, measured="nothing", numbers={"gap": float("nan")})


def run_untrained(folder: Path, *modules: Any) -> paper.Report:
    return paper.run_experiments(modules, BUDGET, folder, engine=engine(), fit=no_fit)


def test_a_page_of_claims_without_training_is_a_page(tmp_path: Path) -> None:
    report = run_untrained(tmp_path, UntrainedClaim("shown"))
    page = paper.claims_page(report, command=["reslearn"])
    assert write_page(page, tmp_path).is_file()
    assert paper.claims_json(report)["claims"][0]["numbers"] == {"gap": None}
    assert paper.claims_json(report)["claims"][0]["rests_on"] == []


@pytest.mark.parametrize(
    ("outcome", "is_open", "contradicts"),
    [
        ("not shown", False, True),
        ("not reproduced", False, True),
        ("not shown", True, False),
        ("undecided", False, False),
        ("shown", False, False),
    ],
)
def test_a_verdict_contradicts_the_paper_unless_the_question_is_open(
    tmp_path: Path, outcome: str, is_open: bool, contradicts: bool
) -> None:
    report = run_untrained(tmp_path, UntrainedClaim(outcome, is_open=is_open))
    assert report.contradicts_paper == contradicts


def test_the_verdicts_of_lines_count_as_well() -> None:
    line = Line(
        what="",
        unit="%",
        paper=None,
        values=(),
        difference=None,
        interval=None,
        outcome="not reproduced",
    )
    assert Result(lines=(line,)).outcomes == ("not reproduced",)
    assert Result(outcome="shown", lines=(line,)).outcomes == ("shown", "not reproduced")


@pytest.mark.parametrize(
    ("data", "recipe"), [("digits", "digits"), ("photos/digits", "cifar-short")]
)
def test_a_folder_called_digits_is_a_folder(data: str, recipe: str) -> None:
    fig1 = paper.load_exhibit("fig1").EXPERIMENT
    assert paper.claims_budget("short", data).recipe == recipe
    assert paper.exhibit_budget(fig1, "short", data).recipe == recipe
