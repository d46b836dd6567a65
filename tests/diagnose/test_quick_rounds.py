"""Quick rounds: few trials settle what is plain, and a network that learns gets more steps."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from reslearn.diagnose import Diagnosis, diagnose, make_problem

torch.manual_seed(0)
X = torch.randn(200, 6)
DATA = X, (X[:, 0] > 0).long() + 2 * (X[:, 1] > 0).long()


def chain(num_hidden: int, deviation: float | None = None) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(6, 24), nn.ReLU()]
    for _ in range(num_hidden):
        layers += [nn.Linear(24, 24), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(24, 4))
    if deviation is not None:
        for weight in net.parameters():
            nn.init.normal_(weight, std=deviation)
    return net


def run(build: object, inputs: torch.Tensor = X, lr: float = 0.05, **options: int) -> Diagnosis:
    problem = make_problem(build, (inputs, DATA[1]), batch_size=32, lr=lr)  # type: ignore[arg-type]
    return diagnose(problem, minutes=5, **options)  # type: ignore[arg-type]


def variants_and_seeds(diagnosis: Diagnosis) -> set[tuple[str, int]]:
    return {(trial.variant, trial.seed) for trial in diagnosis.trials}


def test_a_network_that_learns_is_trained_alone_until_it_is_healthy() -> None:
    diagnosis = run(lambda: chain(0), lr=0.1)
    assert diagnosis.verdict.name == "healthy"
    assert variants_and_seeds(diagnosis) == {("deep", seed) for seed in range(3)}
    assert [(trial.steps, trial.seed) for trial in diagnosis.trials[:5]] == [
        *[(30, 0), (30, 1), (30, 2)],
        *[(60, 0), (120, 0)],  # while the first seed fails, the others change nothing
    ]
    assert diagnosis.steps == max(trial.steps for trial in diagnosis.trials)


@pytest.mark.parametrize("steps", [30, 60])
def test_small_weights_are_named_after_six_trials(steps: int) -> None:
    diagnosis = run(lambda: chain(3, 1e-2), steps=steps)
    assert diagnosis.verdict.subcause == "vanishing" and diagnosis.verdict.certain
    assert len(diagnosis.trials) == 6 and diagnosis.steps == steps


def test_unscaled_inputs_are_named_after_nine_trials() -> None:
    diagnosis = run(lambda: chain(0), X * 300 + 100, steps=60)
    assert diagnosis.verdict.subcause == "scale of the inputs"
    assert len(diagnosis.trials) == 9  # unchanged, standardized, initialized


def test_unscaled_inputs_are_named_though_the_network_learns() -> None:
    """At a rate that is nearly too high, pixels up to 255 only make learning slow and uneven."""
    pixels, labels = load_digits(return_X_y=True)
    problem = make_problem(
        lambda: nn.Sequential(
            *(nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))
        ),
        (torch.tensor(pixels * 255 / 16, dtype=torch.float32), torch.tensor(labels)),
        optimizer=lambda parameters, lr: torch.optim.RMSprop(parameters, lr=lr),
        lr=0.01,
    )
    diagnosis = diagnose(problem, minutes=5, seed=3)
    assert diagnosis.scores.learns("deep")
    assert diagnosis.verdict.subcause == "scale of the inputs"
    assert diagnosis.steps <= 480  # three seeds of 30 steps are too few, more of both settle it
