"""`make_problem`: what it accepts, the loss of guessing, and errors in one line."""

import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from reslearn.diagnose import DiagnosisError, load_function, make_problem, run_trial
from reslearn.diagnose.interventions import takes_free_outputs

torch.manual_seed(0)
X = torch.randn(300, 6)
Y = (X[:, 0] * X[:, 1] > 0).long() + 2 * (X[:, 2] > 0).long()


def mlp(width: int = 12) -> nn.Module:
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 4))


def regressor() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))


def test_regression_is_measured_against_the_mean() -> None:
    problem = make_problem(regressor, (X, X[:, 0] * 3 + 5), lr=0.05)
    assert problem.task == "regression" and problem.guess_loss == pytest.approx(9, rel=0.3)
    trial = run_trial(problem, problem.net(0), variant="deep", lr=0.05, seed=0, steps=100)
    assert trial.train_score < 0.05


def test_loss_and_optimizer_may_be_functions_of_the_user() -> None:
    def rms(parameters: Iterable[torch.Tensor], lr: float) -> torch.optim.Optimizer:
        return torch.optim.RMSprop(parameters, lr=lr)

    data = (X, X[:, 0])
    problem = make_problem(regressor, data, loss=nn.functional.l1_loss, optimizer=rms, lr=0.01)
    trial = run_trial(problem, problem.net(0), variant="deep", lr=0.01, seed=0, steps=200)
    assert trial.train_score < 0.2
    with pytest.raises(DiagnosisError, match="lr is missing: rms has no usual learning rate"):
        make_problem(regressor, data, optimizer=rms)


@pytest.mark.parametrize(
    ("loss", "targets", "best_answer", "guess_loss"),
    [
        # The best answers: the median and not the mean; log-odds and not a share; the mean.
        (nn.functional.l1_loss, [0.0] * 90 + [50.0] * 10, 0.0, 5.0),
        (
            nn.functional.binary_cross_entropy_with_logits,
            [0.0] * 90 + [1.0] * 10,
            math.log(1 / 9),
            0.325,
        ),
        (nn.functional.mse_loss, [0.0] * 50 + [2.0] * 50, 1.0, 1.0),
    ],
)
def test_guessing_is_the_best_constant_answer_to_the_loss(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    targets: list[float],
    best_answer: float,
    guess_loss: float,
) -> None:
    repeated = torch.tensor(targets * 10)
    problem = make_problem(regressor, (torch.zeros(1000, 6), repeated), loss=loss)
    answers = torch.full((1000,), best_answer)
    assert float(loss(answers, repeated)) == pytest.approx(guess_loss, rel=0.01)
    assert problem.guess_loss == pytest.approx(guess_loss, rel=0.1)


@pytest.mark.parametrize(
    ("loss", "is_normalized"),
    [(nn.functional.nll_loss, True), (nn.functional.cross_entropy, False)],
)
def test_a_network_may_return_log_probabilities(loss: Any, is_normalized: bool) -> None:
    def build() -> nn.Module:
        return nn.Sequential(mlp(), nn.LogSoftmax(1))

    problem = make_problem(build, (X, Y), loss=loss)
    assert problem.guess_loss == pytest.approx(make_problem(mlp, (X, Y)).guess_loss, rel=1e-4)
    assert (problem.loss is loss) == (not is_normalized)
    trial = run_trial(problem, problem.net(0), variant="deep", lr=0.1, seed=0, steps=100)
    assert trial.train_score < 0.7


def test_a_loss_may_take_probabilities_only() -> None:
    def build() -> nn.Module:
        return nn.Sequential(regressor(), nn.Sigmoid())

    targets = (X[:, 0] > 0).float()
    problem = make_problem(build, (X, targets), loss=nn.functional.binary_cross_entropy)
    assert problem.guess_loss == pytest.approx(math.log(2), rel=0.05)
    assert not takes_free_outputs(problem)
    assert takes_free_outputs(make_problem(mlp, (X, Y)))


def test_data_may_be_a_loader_and_the_loss_a_class() -> None:
    loader = DataLoader(TensorDataset(X, Y), batch_size=50)
    for data in (loader, loader.dataset):
        problem = make_problem(mlp, data, loss=nn.CrossEntropyLoss)
        assert len(problem.inputs) + len(problem.held_inputs) == len(X)


def summed(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(outputs, targets, reduction="sum")


def negative(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return -nn.functional.cross_entropy(outputs, targets)


def constant_loss(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    return 0.5


def lbfgs(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(parameters, lr)


def no_optimizer(parameters: Any, lr: float) -> None:
    return None


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 4))


def normalized() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": summed}, "doubles with the number"),
        ({"loss": constant_loss}, "the loss returns a float"),
        ({"loss": negative}, "goes below 0"),
        ({"optimizer": lbfgs, "lr": 1.0}, "cannot make a step.*closure"),
        ({"optimizer": no_optimizer, "lr": 1.0}, "the optimizer is a NoneType"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"lr": -0.1}, "lr is -0.1"),
        ({"optimizer": "sdg"}, "optimizer 'sdg' is unknown: allowed are sgd"),
        ({"build": lazy}, "lazy layers without a size"),
        ({"build": normalized, "batch_size": 1}, "cannot train on a batch of 1 inputs"),
    ],
)
def test_a_problem_that_cannot_be_trained_is_refused(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(DiagnosisError, match=message) as raised:
        make_problem(**{"build": mlp, "data": (X, Y), **arguments})
    assert "\n" not in str(raised.value)


def with_nan() -> nn.Module:
    net = mlp()
    nn.init.constant_(net[0].bias, math.nan)  # type: ignore[index]
    return net


def failing() -> nn.Module:
    raise RuntimeError("no such layer")


def exiting() -> nn.Module:
    sys.exit(3)


def needs_width(width: int) -> nn.Module:
    return mlp(width)


def needs_keyword(*, width: int) -> nn.Module:
    return mlp(width=width)


def needs_depth(depth: int) -> nn.Module:
    return mlp()


SHARED = mlp()


@pytest.mark.parametrize(
    ("build", "data", "message"),
    [
        (failing, (X, Y), r"build failed: RuntimeError: no such layer \(.*test_problem.py:\d+\)"),
        (exiting, (X, Y), r"build failed: SystemExit: 3 \(.*test_problem.py:\d+\)"),
        (needs_width, (X, Y), "build needs the argument width"),
        (needs_keyword, (X, Y), "build needs the argument width"),
        (needs_depth, (X, Y), "give --depth N"),
        (lambda: SHARED, (X, Y), "the same parameters twice"),
        (lambda: 3, (X, Y), "build returned 3 of type int"),
        (lambda: nn.ReLU(), (X, Y), "without parameters"),
        (lambda: nn.Sequential(nn.Linear(6, 6), nn.LSTM(6, 4)), (X, Y), "returns a tuple"),
        (with_nan, (X, Y), "whose 0.bias is not finite"),
        (lambda: nn.Linear(6, 4), (X, Y.float()), r"the shape \(\); if the targets are classes"),
        (mlp, (X[:, :5], Y), r"cannot take inputs of shape \(4, 5\)"),
        (mlp, (X, Y + 3), r"returns \(4,\) per input, but the targets have 7 classes$"),
        (mlp, (X, Y + 1), r"the targets have 5 classes; they start at 1, so subtract 1"),
        (lambda: nn.Linear(6, 1), (X, X[:, 0]), r"only their mean is learned: give .* \(N, 1\)"),
        (mlp, (X, X[:, 0]), r"a target has the shape \(\)"),
        (mlp, (X, Y - 2), "integer targets start at -2"),
        (mlp, (X, X[:, 0] / 0), "targets are not finite"),
        (mlp, (X, np.array(["a"] * 300)), "targets cannot be converted to a tensor: TypeError"),
        (mlp, ([[1.0], [2.0, 3.0]], Y), "inputs cannot be converted to a tensor: ValueError"),
        (mlp, (3.0, Y), "inputs are a single number"),
        (mlp, (X, Y[:7]), "300 inputs and 7 targets"),
        (mlp, (X[:9], Y[:9]), "at least 20"),
        (mlp, X, "a pair"),
        (mlp, (X, torch.zeros(300, dtype=torch.long)), "nothing to learn"),
        (mlp, "digts", "did you mean 'digits'?"),
    ],
)
def test_an_error_of_build_or_data_is_one_line(build: object, data: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make_problem(build, data)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_a_file_may_import_its_neighbors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "layers_beside.py").write_text("from torch import nn\nnet = nn.Linear(6, 4)\n")
    (tmp_path / "net_that_imports.py").write_text(
        "from layers_beside import net\ndef build():\n    return net\n"
    )
    for place, folder in (
        (f"{tmp_path}/net_that_imports.py:build", Path("/")),
        ("net_that_imports:build", tmp_path),
    ):
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "path", [path for path in sys.path if path not in ("", ".")])
            assert str(load_function(place)[0]()).startswith("Linear(in_features=6")
        for name in ("layers_beside", "net_that_imports"):
            del sys.modules[name]
