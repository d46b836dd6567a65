"""Diagnoses from a network to a verdict and a page."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from reslearn.diagnose import diagnose, make_problem, make_variants, run_trial
from reslearn.diagnose.data_checks import SCALE_LIMITS
from reslearn.diagnose.diagnosis_json import diagnosis_json
from reslearn.diagnose.page import diagnosis_page
from reslearn.diagnose.screening import suggested_variants
from reslearn.diagnose.trial import WORST_SCORE
from reslearn.report import write_page

torch.manual_seed(0)
X = torch.randn(300, 6)
Y = (X[:, 0] * X[:, 1] > 0).long() + 2 * (X[:, 2] > 0).long()


def mlp(depth: int = 7, width: int = 12) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(6, width), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 4))


@pytest.fixture
def two_rates(few_trials: Callable[..., None]) -> None:
    """Few trials, at two rates, so that one may be better than the given one."""
    few_trials(LR_FACTORS=(1 / 16, 1.0), MAX_WIDENINGS=0)


def test_variants_share_the_weights_of_a_seed() -> None:
    variants = make_variants(make_problem(mlp, (X, Y)))
    assert list(variants.by_name) == ["deep", "shallow", "shortcuts"]
    assert variants.num_layers == 9 and variants.num_layers_shallow == 4
    states = {name: variant.make(3).state_dict() for name, variant in variants.by_name.items()}
    deep = states["deep"]
    assert all(torch.equal(deep[key], weight) for key, weight in states["shallow"].items())
    assert all(torch.equal(weight, states["shortcuts"][key]) for key, weight in deep.items())


def test_a_trial_is_a_pure_function_of_its_seed() -> None:
    problem = make_problem(mlp, (X, Y))
    first, repeated, other_seed = (
        run_trial(
            problem,
            problem.net(seed),
            variant="deep",
            lr=0.05,
            seed=seed,
            steps=40,
            with_signals=True,
        )
        for seed in (0, 0, 1)
    )
    assert first.train_score == repeated.train_score != other_seed.train_score
    assert (first.held_score, first.curve) == (repeated.held_score, repeated.curve)
    assert 0 < first.train_score < 1.1 and first.steps == 40 and first.curve[-1][0] == 40
    assert first.start.gradient_ratio is not None and first.end.dead_share is not None


def test_a_trial_that_diverges_has_the_worst_score() -> None:
    problem = make_problem(mlp, (X * 1e4, Y))
    trial = run_trial(problem, problem.net(0), variant="deep", lr=1e6, seed=0, steps=10)
    assert trial.diverged and trial.train_score == WORST_SCORE


@pytest.mark.slow
def test_a_diagnosis_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("""
import torch
from torch import nn

def build(depth):
    layers = [nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Linear(12, 12), nn.BatchNorm1d(12), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(12, 4))

def data():
    torch.manual_seed(0)
    x = torch.randn(600, 6)
    return x, (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
""")
    options = "net.py:build --data net.py:data --depth 50 --minutes 4 --json"
    command = [sys.executable, "-m", "reslearn", "diagnose", *options.split()]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    values = json.loads(process.stdout)
    assert values["verdict"] == "degradation", values["because"]
    scores = values["train_scores"]  # the deep network can compute what the shallow one learned
    assert scores["constructed"] == pytest.approx(scores["shallow"], abs=1e-4)
    assert "The constructed network has" in values["because"]
    assert "The constructed network after further training has" in values["because"]
    assert (tmp_path / values["page"]).is_file()


def test_nan_is_detected_in_training_and_in_held_out_inputs() -> None:
    problem = make_problem(mlp, (X, Y))
    for inputs in (problem.inputs, problem.held_inputs):
        inputs[3, 2] = math.nan
        assert "Inputs are not finite" in diagnose(problem, minutes=1).verdict.reason
        inputs[3, 2] = 0.0


def test_an_interrupted_diagnosis_has_a_verdict_and_a_page(
    tmp_path: Path, few_trials: Callable[..., None]
) -> None:
    few_trials(FEWEST_SEEDS=3, MAX_SEEDS={1: 3})

    def stop(text: str) -> None:
        if text.startswith("Seed 2, 10 steps: deep"):
            raise KeyboardInterrupt

    diagnosis = diagnose(make_problem(mlp, (X, Y)), minutes=5, steps=10, say=stop)
    assert diagnosis.interrupted
    scores = diagnosis.scores.train
    assert len(scores["deep"]) == 2 and "shallow" not in scores
    assert diagnosis.verdict.name == "undecided"
    assert "Only 2 seeds could be judged" in diagnosis.verdict.reason
    page = write_page(diagnosis_page(diagnosis, command=["reslearn"]), tmp_path)
    assert "before all planned trials were done" in page.read_text()
    assert diagnosis_json(diagnosis)["interrupted"]


@pytest.mark.usefixtures("two_rates")
def test_only_a_given_learning_rate_is_judged() -> None:
    usual = diagnose(make_problem(mlp, (X, Y)), minutes=5, steps=4)
    given = diagnose(make_problem(mlp, (X, Y), lr=1e4), minutes=5, steps=4)
    assert "given" in given.scores.train and "given" not in usual.scores.train


@pytest.mark.parametrize(
    ("factor", "offset", "is_tried"),
    [
        (SCALE_LIMITS[0] * 1.1, 0.0, False),
        (SCALE_LIMITS[0] * 0.9, 0.0, True),
        (SCALE_LIMITS[1] * 0.9, 0.0, False),
        (SCALE_LIMITS[1] * 1.1, 0.0, True),
        (0.1, 0.1 * SCALE_LIMITS[1] * 0.9, False),
        (0.1, 0.1 * SCALE_LIMITS[1] * 1.1, True),
    ],
)
def test_the_inputs_that_suggest_standardized_ones(
    factor: float, offset: float, is_tried: bool
) -> None:
    inputs = (X - X.mean()) / X.std() * factor + offset
    variants = suggested_variants(make_problem(mlp, (inputs, Y)))
    assert ("standardized" in variants) == is_tried


def test_a_note_says_that_all_seeds_have_equal_weights() -> None:
    def seeded() -> nn.Module:
        torch.manual_seed(3)
        return mlp()

    for build, is_noted in ((seeded, True), (mlp, False)):
        notes = make_variants(make_problem(build, (X, Y))).notes
        assert any("same weights for every seed" in note for note in notes) == is_noted


@pytest.mark.usefixtures("two_rates")
def test_integer_inputs_have_no_wide_variant_and_dropout_follows_the_seed() -> None:
    tokens = torch.randint(0, 9, (200, 4), generator=torch.Generator().manual_seed(0))
    targets = torch.arange(200) % 2

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Embedding(9, 8), nn.Flatten(), nn.Linear(32, 8), nn.Dropout(0.5), nn.Linear(8, 2)
        )

    problem = make_problem(build, (tokens, targets), lr=0.1)
    assert "wide" not in diagnose(problem, minutes=5, steps=10).variants.by_name
    first, repeated = (
        run_trial(problem, problem.net(0), variant="deep", lr=0.1, seed=0, steps=10)
        for _ in range(2)
    )
    assert first.train_score == repeated.train_score


def test_constant_inputs_need_no_training_and_have_a_page(tmp_path: Path) -> None:
    problem = make_problem(mlp, (torch.ones(100, 6), torch.arange(100) % 4))
    diagnosis = diagnose(problem, minutes=1)
    assert diagnosis.verdict.name == "data fault" and not diagnosis.trials
    values = json.loads(json.dumps(diagnosis_json(diagnosis), allow_nan=False))
    assert values["verdict"] == "data fault"
    page = write_page(diagnosis_page(diagnosis, command=["reslearn", "diagnose"]), tmp_path)
    assert "Inputs do not vary" in page.read_text()
