"""Diagnoses from a file to a verdict and a page, and what cannot be diagnosed."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from reslearn.diagnose import (
    DiagnosisError,
    diagnose,
    experiment,
    make_conditions,
    make_problem,
    run_trial,
)
from reslearn.diagnose.budget import Clock
from reslearn.diagnose.page import diagnosis_json, diagnosis_page
from reslearn.diagnose.rates import chosen_rate, further_rates
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
def few(few_trials: Callable[..., None]) -> None:
    """Where it is not the trials that are tested; two rates, so that one may be better than that given."""
    few_trials(LR_FACTORS=(1 / 16, 1.0), MAX_WIDENINGS=0)


def test_conditions_are_made_by_surgery_and_share_the_weights_of_a_seed() -> None:
    made = make_conditions(make_problem(mlp, (X, Y)))
    assert list(made.made) == ["deep", "shallow", "shortcuts"]
    assert made.num_layers == 9 and made.num_layers_shallow == 4
    deep, shallow, shortcuts = (
        made.made[name].make(3).state_dict() for name in ("deep", "shallow", "shortcuts")
    )
    assert all(torch.equal(deep[key], shallow[key]) for key in shallow)
    assert all(torch.equal(deep[key], shortcuts[key]) for key in deep)


def test_a_trial_is_a_pure_function_of_its_seed() -> None:
    problem = make_problem(mlp, (X, Y))
    a, b, other = (
        run_trial(
            problem, problem.net(seed), condition="deep", lr=0.05, seed=seed, steps=40, look=True
        )
        for seed in (0, 0, 1)
    )
    assert (a.train_score, a.held_score, a.curve) == (b.train_score, b.held_score, b.curve)
    assert a.train_score != other.train_score
    assert 0 < a.train_score < 1.1 and a.steps == 40 and a.curve[-1][0] == 40
    assert a.start.gradient_ratio is not None and a.end.dead_share is not None


def test_a_trial_that_diverges_has_the_worst_score() -> None:
    problem = make_problem(mlp, (X * 1e4, Y))
    trial = run_trial(problem, problem.net(0), condition="deep", lr=1e6, seed=0, steps=10)
    assert trial.train_score == 2.0


@pytest.mark.parametrize(
    ("scores", "further"),
    [
        ({0.01: 0.9, 0.04: 0.5, 0.16: 0.2}, [0.64]),  # still gaining
        ({0.01: 0.9, 0.04: 0.25, 0.16: 0.22}, []),  # no more
        ({0.01: 0.9, 0.04: 0.2, 0.16: 0.5}, []),  # in between
        ({0.01: 0.2, 0.04: 0.5, 0.16: 2.0}, [0.0025]),
        ({0.01: 2.0, 0.04: 2.0, 0.16: 2.0}, [0.0025]),  # all diverge
        (
            {0.01: 1.0, 0.04: 0.999, 0.16: 0.99},
            [0.64],
        ),  # nothing learns yet, and the largest least badly
    ],
)
def test_learning_rates_go_on_beyond_an_end_that_still_gains(
    scores: dict[float, float], further: list[float]
) -> None:
    assert further_rates(scores) == pytest.approx(further)


def test_regression_is_measured_against_the_mean() -> None:
    problem = make_problem(
        lambda: nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)), (X, X[:, 0] * 3 + 5), lr=0.05
    )
    assert problem.task == "regression" and problem.guess_loss == pytest.approx(9, rel=0.3)
    assert (
        run_trial(problem, problem.net(0), condition="deep", lr=0.05, seed=0, steps=100).train_score
        < 0.05
    )


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
    arguments = [
        "net.py:build",
        "--data",
        "net.py:data",
        "--depth",
        "50",
        "--minutes",
        "4",
        "--json",
    ]
    command = [sys.executable, "-m", "reslearn", "diagnose", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["verdict"] == "degradation", told["because"]
    scores = told["train_scores"]  # the deep network can hold what the shallow one learned
    assert scores["constructed"] == pytest.approx(scores["shallow"], abs=1e-4)
    assert "constructed" in told["because"] and "trained on from there" in told["because"]
    assert (tmp_path / told["page"]).is_file()


def test_a_number_that_is_none_is_found_in_any_part_of_the_data() -> None:
    problem = make_problem(mlp, (X, Y))
    for place in (problem.inputs, problem.held_inputs):
        place[3, 2] = math.nan
        assert "inputs are not finite" in diagnose(problem, minutes=1).verdict.because
        place[3, 2] = 0.0


def test_stopped_by_hand_the_evidence_so_far_is_a_verdict_and_a_page(tmp_path: Path) -> None:
    def stop(text: str) -> None:
        if text.startswith("seed 1, 10 steps: shallow"):
            raise KeyboardInterrupt

    found = diagnose(make_problem(mlp, (X, Y)), minutes=5, steps=10, say=stop)
    assert (
        found.interrupted
        and len(found.evidence.train["deep"]) == 2
        and len(found.evidence.train["shallow"]) == 1
    )
    assert found.verdict.name == "undecided" and "2 seeds could be judged" in found.verdict.because
    assert (
        "before all that was planned"
        in write_page(diagnosis_page(found, command=["reslearn"]), tmp_path).read_text()
    )
    assert diagnosis_json(found)["interrupted"]


@pytest.mark.usefixtures("few")
def test_no_learning_rate_is_judged_where_none_was_given() -> None:
    usual = diagnose(make_problem(mlp, (X, Y)), minutes=5, steps=4)
    own = diagnose(make_problem(mlp, (X, Y), lr=1e4), minutes=5, steps=4)
    assert "given" in own.evidence.train and "given" not in usual.evidence.train


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("gain", "tried"), [(0.1, True), (1.0, False), (8.0, True), (1e-9, True), (1e3, True)]
)
def test_another_start_is_tried_where_the_signal_vanishes_or_explodes(
    gain: float, tried: bool
) -> None:
    """The gradients of the weights, products of a signal and a gradient, are alike in all layers of such a chain."""

    def build() -> nn.Module:
        net = mlp(depth=8)
        for module in net.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=gain * (2 / module.in_features) ** 0.5)
        return net

    found = diagnose(make_problem(build, (X, Y)), minutes=5, steps=4)
    assert ("initialized" in found.conditions.made) == tried


def test_seeds_that_are_one_are_told() -> None:
    def build() -> nn.Module:
        torch.manual_seed(3)
        return mlp()

    assert any(
        "same weights for every seed" in note
        for note in make_conditions(make_problem(build, (X, Y))).notes
    )
    assert not any(
        "same weights" in note for note in make_conditions(make_problem(mlp, (X, Y))).notes
    )


def test_loss_and_optimizer_of_ones_own() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))

    def rms(parameters: Iterable[torch.Tensor], lr: float) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, lr=lr)

    problem = make_problem(build, (X, X[:, 0]), loss=nn.functional.l1_loss, optimizer=rms, lr=0.01)
    assert (
        run_trial(problem, problem.net(0), condition="deep", lr=0.01, seed=0, steps=200).train_score
        < 0.2
    )
    with pytest.raises(DiagnosisError, match="lr: of rms no usual learning rate"):
        make_problem(build, (X, X[:, 0]), optimizer=rms)


@pytest.mark.parametrize(
    ("loss", "targets", "guess"),
    [
        (
            nn.functional.l1_loss,
            torch.tensor([0.0] * 90 + [50.0] * 10),
            5.0,
        ),  # the median, not the mean
        (
            nn.functional.binary_cross_entropy_with_logits,
            torch.tensor([0.0] * 90 + [1.0] * 10),
            0.325,
        ),  # log-odds, no share
        (nn.functional.mse_loss, torch.tensor([0.0] * 50 + [2.0] * 50), 1.0),
    ],
)
def test_guessing_is_the_best_constant_answer_to_the_loss(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], targets: torch.Tensor, guess: float
) -> None:
    targets = targets.repeat(10)
    problem = make_problem(
        lambda: nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)),
        (torch.zeros(1000, 6), targets),
        loss=loss,
    )
    kept = float(
        loss(torch.full((1000,), {5.0: 0.0, 0.325: math.log(1 / 9), 1.0: 1.0}[guess]), targets)
    )
    assert kept == pytest.approx(guess, rel=0.01) and problem.guess_loss == pytest.approx(
        guess, rel=0.1
    )


@pytest.mark.parametrize(
    ("given", "tells"),
    [
        (
            {
                "loss": lambda outputs, targets: nn.functional.cross_entropy(
                    outputs, targets, reduction="sum"
                )
            },
            "doubles with the number",
        ),
        ({"loss": lambda outputs, targets: 0.5}, "the loss gives a float"),
        (
            {"loss": lambda outputs, targets: -nn.functional.cross_entropy(outputs, targets)},
            "goes below 0",
        ),
        (
            {"optimizer": lambda parameters, lr: torch.optim.LBFGS(parameters, lr), "lr": 1.0},
            "cannot make a step.*closure",
        ),
        ({"optimizer": lambda parameters, lr: None, "lr": 1.0}, "the optimizer is a NoneType"),
        ({"batch_size": 0}, "batch_size 0"),
        (
            {"build": lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 4))},
            "without a size yet",
        ),
        (
            {"build": lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), "batch_size": 1},
            "batch of 1 inputs in training",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_trained_is_told_before_any_trial(given: dict[str, Any], tells: str) -> None:
    with pytest.raises(DiagnosisError, match=tells) as raised:
        make_problem(**{"build": mlp, "data": (X, Y), **given})
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("few")
def test_tokens_have_no_wide_network_and_dropout_follows_the_seed() -> None:
    tokens, targets = (
        torch.randint(0, 9, (200, 4), generator=torch.Generator().manual_seed(0)),
        torch.arange(200) % 2,
    )

    def net() -> nn.Module:
        return nn.Sequential(
            nn.Embedding(9, 8), nn.Flatten(), nn.Linear(32, 8), nn.Dropout(0.5), nn.Linear(8, 2)
        )

    problem = make_problem(net, (tokens, targets), lr=0.1)
    assert "wide" not in diagnose(problem, minutes=5, steps=10).conditions.made
    once, again = (
        run_trial(problem, problem.net(0), condition="deep", lr=0.1, seed=0, steps=10)
        for _ in range(2)
    )
    assert once.train_score == again.train_score


def test_a_loader_and_a_class_of_loss_are_taken() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=50)
    for data in (loader, loader.dataset):
        problem = make_problem(mlp, data, loss=nn.CrossEntropyLoss)
        assert len(problem.inputs) + len(problem.held_inputs) == len(X)


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ({0.01: 0.9, 0.04: 0.5, 0.16: 0.2}, 0.16),
        ({0.01: 0.02, 0.04: 0.001, 0.16: 0.0}, 0.01),  # all the same but for half the margin
        ({0.01: 0.3, 0.04: 0.22, 0.16: 0.2}, 0.04),
    ],
)
def test_the_smallest_rate_that_is_as_good_is_taken(
    scores: dict[float, float], chosen: float
) -> None:
    assert chosen_rate(scores, usual=0.04) == chosen


def test_where_nothing_learns_the_usual_rate_is_taken() -> None:
    assert chosen_rate({0.01: 1.001, 0.04: 1.004, 0.16: 1.0}, usual=0.04) == 0.04
    assert chosen_rate({0.01: 2.0, 0.04: 2.0, 0.16: 2.0}, usual=0.04) == 0.01  # all diverge


@pytest.mark.parametrize(
    ("short", "at", "chosen"),
    [
        (
            {0.04: 0.3, 0.16: 0.4},
            {0.01: 0.1, 0.04: 2.0},
            0.01,
        ),  # a short trial bears more than a long one
        ({0.04: 0.3, 0.16: 0.4}, {0.01: 0.5, 0.04: 0.1}, 0.04),
        ({0.04: 0.3, 0.16: 0.4}, {0.01: 0.11, 0.04: 0.1}, 0.01),
        (
            {0.01: 1.0, 0.04: 1.0},
            {0.0025: 1.0, 0.01: 1.0, 0.04: 1.0, 0.16: 0.1},
            0.16,
        ),  # short trials said nothing
    ],
)
def test_a_network_is_not_accused_at_a_rate_that_only_short_trials_bear(
    short: dict[float, float],
    at: dict[float, float],
    chosen: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = make_problem(mlp, (X, Y), lr=0.04)
    made = experiment._Experiment(
        problem=problem,
        conditions=make_conditions(problem),
        response_ratio=None,
        clock=Clock(seconds=9),
        say=print,
        with_proof=False,
        times=4,
        steps=10,
        rates={"deep": (0.04, short), "shallow": (0.04, short)},
    )
    monkeypatch.setattr(
        experiment,
        "run_trial",
        lambda problem, net, *, lr, **others: SimpleNamespace(train_score=at[lr]),
    )
    made.choose_rates_again()
    assert {name: rate for name, (rate, _) in made.rates.items()} == {
        "deep": chosen,
        "shallow": chosen,
    }


def test_constant_inputs_are_told_without_training_and_have_a_page(tmp_path: Path) -> None:
    found = diagnose(make_problem(mlp, (torch.ones(100, 6), torch.arange(100) % 4)), minutes=1)
    assert found.verdict.name == "data fault" and not found.trials
    assert json.loads(json.dumps(diagnosis_json(found), allow_nan=False))["verdict"] == "data fault"
    assert (
        "inputs do not vary"
        in write_page(diagnosis_page(found, command=["reslearn", "diagnose"]), tmp_path).read_text()
    )


def _with_nan() -> nn.Module:
    net = mlp()
    nn.init.constant_(net[0].bias, math.nan)  # type: ignore[index]
    return net


def failing() -> nn.Module:
    raise RuntimeError("no such layer")


def leaving() -> nn.Module:
    sys.exit(3)


def needing(*, width: int) -> nn.Module:
    return mlp(width=width)


ONE = mlp()


@pytest.mark.parametrize(
    ("build", "data", "words"),
    [
        (failing, (X, Y), r"build failed: RuntimeError: no such layer \(.*test_diagnose.py:\d+\)"),
        (lambda width: mlp(), (X, Y), "build needs the argument width"),
        (needing, (X, Y), "build needs the argument width"),
        (lambda depth: mlp(depth), (X, Y), "give --depth N"),
        (leaving, (X, Y), r"build failed: SystemExit: 3 \(.*test_diagnose.py:\d+\)"),
        (lambda: ONE, (X, Y), "the same parameters twice"),
        (lambda: 3, (X, Y), "build gave 3, of type int"),
        (lambda: nn.ReLU(), (X, Y), "without parameters"),
        (lambda: nn.Sequential(nn.Linear(6, 6), nn.LSTM(6, 4)), (X, Y), "gives a tuple"),
        (lambda: _with_nan(), (X, Y), "whose 0.bias is not finite: nan"),
        (
            lambda: nn.Linear(6, 4),
            (X, Y.float()),
            "targets are \\(\\); classes are told by whole numbers",
        ),
        (mlp, (X[:, :5], Y), r"cannot take inputs of shape \(4, 5\)"),
        (mlp, (X, Y + 3), r"gives \(4,\) an input, and the targets have 7 classes"),
        (mlp, (X, X[:, 0]), r"targets are \(\)"),
        (mlp, (X, Y - 2), "integer targets from -2 on"),
        (mlp, (X, X[:, 0] / 0), "targets are not finite"),
        (mlp, (X, np.array(["a"] * 300)), "targets make no tensor: TypeError"),
        (mlp, ([[1.0], [2.0, 3.0]], Y), "inputs make no tensor: ValueError"),
        (mlp, (3.0, Y), "inputs are a single number"),
        (mlp, (X, Y[:7]), "300 inputs and 7 targets"),
        (mlp, (X[:9], Y[:9]), "at least 20"),
        (mlp, X, "a pair"),
        (mlp, (X, torch.zeros(300, dtype=torch.long)), "nothing to learn"),
        (mlp, "digts", "did you mean 'digits'?"),
    ],
)
def test_what_cannot_be_diagnosed_is_one_line(build: object, data: object, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        make_problem(build, data)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_a_file_may_import_those_beside_it(tmp_path: Path) -> None:
    (tmp_path / "layers_beside.py").write_text("from torch import nn\nnet = nn.Linear(6, 4)\n")
    (tmp_path / "net_that_imports.py").write_text(
        "from layers_beside import net\ndef build():\n    return net\n"
    )
    command = [
        sys.executable,
        "-P",
        "-c",
        "import sys; from reslearn.diagnose import load_build; print(load_build(sys.argv[1])[0]())",
    ]
    for place, folder in (
        (f"{tmp_path}/net_that_imports.py:build", Path("/")),
        ("net_that_imports:build", tmp_path),
    ):
        done = subprocess.run(
            [*command, place], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.stdout.startswith("Linear(in_features=6"), done.stderr


def test_too_little_time_says_how_much_is_needed() -> None:
    with pytest.raises(DiagnosisError, match="too few for this network"):
        diagnose(make_problem(mlp, (X, Y)), minutes=0.01)
