"""C6, C9, C10, C11 and C14 judged on tiny real runs, and their rules on numbers made up for the purpose."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest

from reslearn import recipes
from reslearn.paper import protocol
from reslearn.paper.budgets import demo, paper_budget
from reslearn.paper.claim import Budget, Finding, Runs
from reslearn.paper.claims import c06, c09, c10, c11, c14
from reslearn.report import Page, Section, render_html
from reslearn.runs import RunFolder, to_json_value
from reslearn.study import Comparison, compare
from reslearn.train import Machine, fit, train_recipe

BUDGET = Budget(
    name="demo",
    data="digits",
    recipe="digits",
    depths=(8, 14),
    learning_rates=(0.1,),
    choice_seeds=(100,),
    judge_seeds=(0, 1),
    overrides=(
        "schedule.kind=constant",
        'schedule.duration="12 steps"',
        "data.train_images=200",
        'evaluation.snapshots=["0 steps", "4 steps"]',
    ),
)


@pytest.fixture(scope="session")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Plain and residual nets of 8 and 14 layers on two seeds, 12 steps each."""
    folder = tmp_path_factory.mktemp("claims")
    runs: dict[object, RunFolder] = {}
    found = Runs(budget=BUDGET, runs=runs, folder=folder, fit=fit)  # type: ignore[arg-type]
    for condition in protocol.judged_conditions(found):
        settings = (
            *BUDGET.overrides,
            f"model.name={condition.model}",
            f"seed={condition.seed}",
            *condition.overrides,
        )
        place = folder / f"{condition.model}-{condition.seed}"
        train_recipe(recipes.load("digits", overrides=settings), place, Machine(threads=1))
        runs[condition] = RunFolder.open(place)
    return found


@pytest.mark.parametrize("claim", [c09, c10, c11, c14])
def test_runs_are_those_of_the_depth_study(claim: object, evidence: Runs) -> None:
    budget = demo()
    assert set(claim.conditions(budget)) <= set(protocol.choice_conditions(budget))  # type: ignore[attr-defined]
    assert set(claim.judged_conditions(evidence)) <= set(protocol.judged_conditions(evidence))  # type: ignore[attr-defined]


@pytest.mark.parametrize("claim", [c09, c10, c11, c14])
def test_without_a_finished_run_nothing_is_decided(
    claim: object, evidence: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c11, "_STEPS", 80)
    finding = claim.judge(dataclasses.replace(evidence, runs={}))  # type: ignore[attr-defined]
    assert finding.outcome == "undecided"
    assert "no " in finding.measured


def check_finding(finding: Finding) -> None:
    """Numbers are plain JSON, and the figures can be drawn."""
    json.dumps(to_json_value(finding.numbers), allow_nan=False)
    figures = finding.figures
    assert all(figure.series for figure in figures)
    render_html(Page("claims", sections=[Section("figures", "", figures)]))


def test_c9_measures_every_moment_of_the_deepest_plain_net(evidence: Runs) -> None:
    finding = c09.judge(evidence)
    check_finding(finding)
    assert finding.numbers["model"] == "plain14"
    assert list(finding.numbers["mean_ratios_by_step"]) == [0, 4, 12]
    assert len(finding.rests_on) == 2
    drawn = [series.name for series in finding.figures[0].series if series.style == "line"]
    assert drawn == [f"step {step}, mean of 2 seeds" for step in (0, 4, 12)]
    control = finding.numbers["controls"]["N(0, 0.01), no batch norm"]
    assert control["signal_ratio"] < 0.01
    assert finding.outcome == "shown"  # 14 layers with batch norm are short enough to be healthy


@pytest.mark.parametrize(
    ("ratios", "means", "sees", "outcome"),
    [
        ([0.5, 2.0, 99.0], [0.5, 14.0], True, "shown"),
        ([0.5, 2.0, 99.0], [0.5, 14.0], False, "undecided"),
        ([0.5, 150.0, 60.0], [0.5, 95.0], True, "undecided"),
        ([150.0, 200.0], [173.0], True, "not shown"),
        ([0.005, 0.001], [0.002], True, "not shown"),
        ([math.nan], [math.nan], True, "not shown"),
    ],
)
def test_the_rule_of_c9(ratios: list[float], means: list[float], sees: bool, outcome: str) -> None:
    assert c09._outcome(ratios, means, sees=sees) == outcome


def test_c10_builds_the_deep_net_from_the_shallow_one(evidence: Runs) -> None:
    finding = c10.judge(evidence)
    check_finding(finding)
    numbers = finding.numbers
    assert (numbers["shallow_depth"], numbers["depth"], numbers["seeds"]) == (8, 14, [0, 1])
    shallow = [
        run.result["train_loss"]
        for condition, run in evidence.runs.items()
        if condition.model == "plain8"
    ]
    assert numbers["constructed_loss"] == pytest.approx(shallow, rel=1e-3)
    assert max(numbers["max_logit_difference"]) < 1e-3
    assert len(finding.rests_on) == 4


def test_c10_needs_two_depths(evidence: Runs) -> None:
    alone = dataclasses.replace(evidence, budget=dataclasses.replace(BUDGET, depths=(14,)))
    assert c10.judge(alone).outcome == "not testable here"


@pytest.mark.parametrize(
    ("trained", "unchanged", "outcome"),
    [
        ([1.5, 1.6, 1.4], True, "shown"),
        ([1.5, 1.6, 1.4], False, "undecided"),
        ([0.0, 3.0, 0.4], True, "undecided"),
        ([0.1, 0.11, 0.12], True, "not shown"),
        ([1.5], True, "undecided"),
    ],
)
def test_the_rule_of_c10(trained: list[float], unchanged: bool, outcome: str) -> None:
    constructed = [0.2, 0.21, 0.22][: len(trained)]
    assert c10._outcome(compare(trained, constructed, paired=True), unchanged) == outcome


def test_c11_fits_the_identity_and_reads_responses(
    evidence: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c11, "_STEPS", 120)
    finding = c11.judge(evidence)
    check_finding(finding)
    losses = finding.numbers["fit_loss"]
    assert max(losses["with"]) < 0.5 * min(losses["without"])
    assert finding.numbers["fit_log_ratio"]["mean"] > 0
    in_order, by_size = (
        [series for series in figure.series if series.style == "line"] for figure in finding.figures
    )
    assert [series.name for series in in_order] == [
        f"{net}, mean of 2 seeds" for net in ("plain8", "plain14", "resnet8", "resnet14")
    ]
    assert len(in_order[1].x) == 13
    assert list(by_size[1].y) == sorted(by_size[1].y, reverse=True)


def comparison(low: float, high: float) -> Comparison:
    return Comparison(
        difference=(low + high) / 2,
        interval_low=low,
        interval_high=high,
        p=None,
        n_a=3,
        n_b=3,
        paired=True,
    )


@pytest.mark.parametrize(
    ("fitted", "compared", "outcome"),
    [
        (comparison(1, 3), comparison(0.1, 0.3), "shown"),
        (comparison(1, 3), comparison(-0.1, 0.3), "undecided"),
        (comparison(1, 3), comparison(-0.4, -0.3), "not shown"),
        (comparison(0.5, 3), comparison(0.1, 0.3), "undecided"),
        (comparison(-3, -1), comparison(0.1, 0.3), "not shown"),
        (comparison(1, 3), None, "undecided"),
    ],
)
def test_the_rule_of_c11(fitted: Comparison, compared: Comparison | None, outcome: str) -> None:
    assert c11._outcome(fitted, compared) == outcome
    # A fit that diverged was left out: the fits may then speak for neither side.
    expected = (
        "not shown"
        if compared is not None and compared.interval is not None and compared.interval.high < 0
        else "undecided"
    )
    assert c11._outcome(dataclasses.replace(fitted, num_diverged=1), compared) == expected


def test_c14_probes_trained_and_untrained(evidence: Runs) -> None:
    finding = c14.judge(evidence)
    check_finding(finding)
    errors = finding.numbers["test_error_pct"]
    assert list(errors["trained"][0]) == ["stem", "stage1", "stage2", "stage3"]
    assert len(errors["trained"]) == len(errors["untrained"]) == 2
    assert (
        finding.numbers["gain_pct"]["trained"][0]
        == errors["trained"][0]["stem"] - errors["trained"][0]["stage3"]
    )


@pytest.mark.parametrize(
    ("gained", "more", "trained", "outcome"),
    [
        (comparison(5, 9), comparison(4, 8), [20, 10, 10.9, 9], "shown"),
        (comparison(5, 9), comparison(4, 8), [20, 10, 11.1, 9], "undecided"),
        (comparison(0.5, 9), comparison(4, 8), [20, 10, 9, 9], "undecided"),
        (comparison(5, 9), comparison(-1, 8), [20, 10, 9, 9], "undecided"),
        (comparison(-2, 0.5), comparison(4, 8), [20, 10, 9, 9], "not shown"),
        (comparison(5, 9), comparison(-8, -4), [20, 10, 9, 9], "not shown"),
    ],
)
def test_the_rule_of_c14(
    gained: Comparison, more: Comparison, trained: list[float], outcome: str
) -> None:
    assert c14._outcome(gained, more, trained) == outcome


def test_c6_trains_four_starts_at_two_rates_on_seeds_of_the_budget() -> None:
    for budget, num_seeds in ((demo(), 2), (paper_budget("full", "cifar10"), 5)):
        wanted = c06.conditions(budget)
        assert len(set(wanted)) == len(wanted) == 8 * num_seeds
        for condition in wanted:  # every one is a recipe that can be
            settings = (*budget.overrides, f"model.name={condition.model}", *condition.overrides)
            assert (
                str(recipes.load(budget.recipe, overrides=settings).schedule.duration)
                == "120 steps"
            )


@pytest.fixture
def starts(evidence: Runs, tmp_path: Path) -> Runs:
    """A finished run for each condition of C6; its loss is 1.0 with batch norm and that of guessing without."""
    source = next(run for condition, run in evidence.runs.items() if condition.model == "plain8")
    runs = {}
    for number, condition in enumerate(c06.conditions(BUDGET)):
        run = RunFolder.open(shutil.copytree(source.path, tmp_path / str(number)))
        loss = 1.0 if "model.normalize=true" in condition.overrides else math.log(10)
        run.finish({**run.result, "train_recomputed_loss": loss})
        runs[condition] = run
    return dataclasses.replace(evidence, runs=runs)


def test_c6_tells_who_starts(starts: Runs) -> None:
    finding = c06.judge(starts)
    check_finding(finding)
    assert finding.outcome == "shown"
    assert "He, batch norm: 1.00" in finding.measured
    assert "N(0, 0.01), no batch norm: 2.30 (does not start)" in finding.measured
    signals = finding.numbers["signals_at_step_0"]
    assert (
        signals["N(0, 0.01), no batch norm"]["forward"][-1]
        < 1e-3 * signals["He, batch norm"]["forward"][-1]
    )


def test_c6_a_start_that_diverged_is_none(starts: Runs) -> None:
    old = {
        c: run
        for c, run in starts.runs.items()
        if "model.normalize=true" in c.overrides or "model.init=he_fan_out" in c.overrides
    }
    finding = c06.judge(dataclasses.replace(starts, runs=old))
    assert finding.outcome == "shown"
    assert "N(0, 0.01), no batch norm: inf (does not start)" in finding.measured
    check_finding(finding)
    assert c06.judge(dataclasses.replace(starts, runs={})).outcome == "undecided"


@pytest.mark.parametrize(
    ("modern", "old", "outcome"),
    [
        ([True, True], [False, False], "shown"),
        ([True, True], [True, False], "undecided"),
        ([True, False], [False, False], "undecided"),
        ([False, False], [False, False], "not shown"),
        ([True, True], [True, True], "not shown"),
    ],
)
def test_the_rule_of_c6(modern: list[bool], old: list[bool], outcome: str) -> None:
    assert c06._outcome(modern, old) == outcome


@pytest.mark.parametrize("claim", [c06, c09, c10, c11, c14])
def test_rules_are_sentences_with_their_margins(claim: object) -> None:
    rule = claim.CLAIM.rule  # type: ignore[attr-defined]
    assert "  " not in rule
    assert "{" not in rule
    assert all(word in rule for word in ("Shown if", "ot shown if", "ndecided"))
