"""Weight decay and dropout are removed where a network learns nothing, and named if that helps."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from reslearn.diagnose import Problem, diagnose, make_problem
from reslearn.diagnose.answer import answer_lines
from reslearn.diagnose.regularization import regularization_of, unregularized

torch.manual_seed(0)
X = torch.randn(200, 6)
DATA = X, (X[:, 0] > 0).long() + 2 * (X[:, 1] > 0).long()


class Decaying:
    """An optimizer with weight decay, as users write one."""

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def __call__(self, parameters: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=self.decay)


def problem_of(dropout: float, decay: float) -> Problem:
    def build() -> nn.Module:
        layers = (nn.Linear(6, 24), nn.ReLU(), nn.Dropout(dropout), nn.Linear(24, 4))
        return nn.Sequential(*layers)

    return make_problem(build, DATA, optimizer=Decaying(decay), lr=0.1, batch_size=32)


@pytest.mark.parametrize(
    ("dropout", "decay", "advice"),
    [
        (0.99, 0.0, "dropout far below 0.99"),
        (0.0, 1.0, "a weight decay far below 1 "),
        (0.99, 1.0, "dropout far below 0.99"),
    ],
)
def test_too_much_of_it_is_named(dropout: float, decay: float, advice: str) -> None:
    diagnosis = diagnose(problem_of(dropout, decay), minutes=5, steps=30)
    assert diagnosis.verdict.name == "too much regularization" and diagnosis.verdict.certain
    assert advice in answer_lines(diagnosis)[0]


def test_usual_values_are_not_removed_from_a_network_that_learns() -> None:
    diagnosis = diagnose(problem_of(0.1, 1e-4), minutes=5)
    assert diagnosis.verdict.name == "healthy"
    assert {trial.variant for trial in diagnosis.trials} == {"deep"}


def test_dropout_of_attention_and_recurrent_layers_is_removed() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.2, batch_first=True)
            self.recurrent = nn.LSTM(6, 4, num_layers=2, dropout=0.3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = self.recurrent(self.attention(x[:, None]))[0][:, -1]
            return outputs

    problem = make_problem(Both, DATA, optimizer=Decaying(0.5), lr=0.1)
    assert regularization_of(problem) == (0.5, 0.3)
    variant = unregularized(problem)
    assert variant is not None
    net = variant.make(0).train()
    assert torch.equal(net(X), net(X)), "nothing is drawn at random"
    optimizer = variant.problem.make_optimizer(net.parameters(), 0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0]


def test_a_network_without_it_has_no_such_variant() -> None:
    assert unregularized(problem_of(0.0, 0.0)) is None
