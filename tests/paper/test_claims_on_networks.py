"""The claims that look into trained networks (C6, C9, C10, C11, C14), on networks of 12 steps."""

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from reslearn import paper, recipes
from reslearn.paper.claims import c06, c09, c10, c11, c14
from reslearn.paper.experiment import Budget, Result
from reslearn.paper.trained import Trained
from reslearn.report import Page, Section, render_html
from reslearn.runs import RunFolder, to_json_value
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Plain and residual networks of 8 and 14 layers on two seeds."""
    folder = tmp_path_factory.mktemp("claims")
    trained = Trained(budget=BUDGET, folder=folder, fit=fit)
    for spec in trained.judged_specs():
        settings = [f"model.name={spec.model}", f"seed={spec.seed}", *spec.overrides]
        recipe = recipes.load("digits", overrides=[*BUDGET.overrides, *settings])
        run_folder = folder / f"{spec.model}-{spec.seed}"
        train_recipe(recipe, run_folder, Machine(threads=1))
        trained.runs[spec] = RunFolder.open(run_folder)
    return trained


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    for claim in (c06, c09):
        monkeypatch.setattr(claim, "_NUM_IMAGES", 64)
    monkeypatch.setattr(c11, "_NUM_IMAGES", 64)


def without(trained: Trained, model: str, seed: int) -> Trained:
    """Return the same runs, but one of them diverged."""
    lost = trained.judged_spec(model, seed)
    runs = {spec: run for spec, run in trained.runs.items() if spec != lost}
    return dataclasses.replace(trained, runs=runs, diverged={lost})


def check(result: Result) -> None:
    """Check that the numbers are plain JSON, and that there are figures, which can be drawn."""
    json.dumps(to_json_value(result.numbers), allow_nan=False)
    render_html(Page("claims", sections=[Section("figures", "", result.figures)]))
    assert all(getattr(figure, "series", ()) for figure in result.figures)


@pytest.mark.parametrize("claim", [c09, c10, c11, c14])
def test_without_a_finished_run_nothing_is_decided(
    claim: Any, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c11, "_STEPS", 1)
    result = claim.measure(dataclasses.replace(trained, runs={}))
    assert result.outcome == "undecided"
    assert "no " in result.measured


def test_c9_measures_every_moment_of_the_deepest_plain_network(trained: Trained) -> None:
    result = c09.measure(trained)
    check(result)
    assert result.numbers["model"] == "plain14"
    assert list(result.numbers["mean_ratios_by_step"]) == [0, 4, 12]
    assert result.rests_on == ("plain14-0", "plain14-1")
    figure: Any = result.figures[0]
    means = [series.name for series in figure.series if series.style == "line"]
    assert means == [f"step {step}, mean of 2 seeds" for step in (0, 4, 12)]
    control = result.numbers["controls"]["N(0, 0.01), no batch norm"]
    assert control["signal_ratio"] < 0.01
    assert result.outcome == "shown"  # 14 layers with batch norm are few enough to be healthy


def test_c9_is_undecided_if_a_run_of_its_network_diverged(trained: Trained) -> None:
    assert c09.measure(without(trained, "plain14", 1)).outcome == "undecided"
    assert c09.measure(without(trained, "plain8", 1)).outcome == "shown"


def test_c10_constructs_the_deep_network_from_the_shallow_one(trained: Trained) -> None:
    result = c10.measure(trained)
    check(result)
    numbers = result.numbers
    assert (numbers["shallow_depth"], numbers["depth"], numbers["seeds"]) == (8, 14, [0, 1])
    shallow = [
        run.result["train_loss"] for spec, run in trained.runs.items() if spec.model == "plain8"
    ]
    assert numbers["constructed_loss"] == pytest.approx(shallow, rel=1e-3)
    assert max(numbers["max_logit_difference"]) < 1e-3
    assert len(result.rests_on or ()) == 4


def test_c11_fits_the_identity_and_reads_responses(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(c11, "_STEPS", 60)
    result = c11.measure(trained)
    check(result)
    losses = result.numbers["fit_loss"]
    assert max(losses["with"]) < 0.5 * min(losses["without"])
    assert result.numbers["fit_log_ratio"]["mean"] > 0
    figures: Any = result.figures
    in_order, by_size = (
        [series for series in figure.series if series.style == "line"] for figure in figures
    )
    assert [series.name for series in in_order] == [
        f"{model}, mean of 2 seeds" for model in ("plain8", "plain14", "resnet8", "resnet14")
    ]
    assert len(in_order[1].x) == 13
    assert list(by_size[1].y) == sorted(by_size[1].y, reverse=True)


def test_c14_probes_trained_and_untrained_networks(trained: Trained) -> None:
    result = c14.measure(trained)
    check(result)
    errors = result.numbers["test_error_pct"]
    assert list(errors["trained"][0]) == ["stem", "stage1", "stage2", "stage3"]
    assert len(errors["trained"]) == len(errors["untrained"]) == 2
    gain = errors["trained"][0]["stem"] - errors["trained"][0]["stage3"]
    assert result.numbers["gain_pct"]["trained"][0] == gain


@pytest.mark.parametrize(
    ("budget", "num_seeds"), [(paper.demo(), 2), (paper.claims_budget("full", "cifar10"), 5)]
)
def test_c6_trains_four_starts_at_two_rates(budget: Budget, num_seeds: int) -> None:
    specs = c06.specs(budget)
    assert len(set(specs)) == len(specs) == 8 * num_seeds
    for spec in specs:
        settings = (*budget.overrides, f"model.name={spec.model}", *spec.overrides)
        recipe = recipes.load(budget.recipe, overrides=settings)
        assert str(recipe.schedule.duration) == "120 steps"


@pytest.fixture
def starts(trained: Trained, tmp_path: Path) -> Trained:
    """The runs of C6: a loss of 1.0 with batch norm, and the loss of guessing without it."""
    losses = {"model.normalize=true": 1.0, "model.normalize=false": math.log(10)}
    return with_losses(trained, tmp_path, losses)


def with_losses(trained: Trained, folder: Path, losses: dict[str, float]) -> Trained:
    """Return runs of C6 with a final loss by setting."""
    source = next(run for spec, run in trained.runs.items() if spec.model == "plain8")
    runs = {}
    for number, spec in enumerate(c06.specs(BUDGET)):
        run = RunFolder.open(shutil.copytree(source.path, folder / str(number)))
        (loss,) = (losses[setting] for setting in spec.overrides if setting in losses)
        run.finish({**run.result, "train_recomputed_loss": loss})
        runs[spec] = run
    return dataclasses.replace(trained, runs=runs, _results={})


def test_c6_names_the_starts_that_converge(starts: Trained) -> None:
    result = c06.measure(starts)
    check(result)
    assert result.outcome == "shown"
    assert "He, batch norm: 1.00" in result.measured
    assert "N(0, 0.01), no batch norm: 2.30 (does not start)" in result.measured
    signals = result.numbers["signals_at_step_0"]
    old, modern = signals["N(0, 0.01), no batch norm"], signals["He, batch norm"]
    assert old["forward"][-1] < 1e-3 * modern["forward"][-1]


@pytest.mark.parametrize(("factor", "outcome"), [(0.89, "shown"), (0.91, "not shown")])
def test_c6_at_its_margin(trained: Trained, tmp_path: Path, factor: float, outcome: str) -> None:
    loss = factor * math.log(10)
    losses = {"model.normalize=true": loss, "model.normalize=false": math.log(10)}
    assert c06.measure(with_losses(trained, tmp_path, losses)).outcome == outcome


def test_c6_a_diverged_start_does_not_converge(starts: Trained) -> None:
    runs = {
        spec: run
        for spec, run in starts.runs.items()
        if "model.normalize=true" in spec.overrides or "model.init=he_fan_out" in spec.overrides
    }
    result = c06.measure(dataclasses.replace(starts, runs=runs))
    check(result)
    assert result.outcome == "shown"
    assert "N(0, 0.01), no batch norm: inf (does not start)" in result.measured
    assert c06.measure(dataclasses.replace(starts, runs={})).outcome == "undecided"
