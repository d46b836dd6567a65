"""Screening finds a forward that cuts the gradient or drops its input, and a loss without limit."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reslearn.diagnose import ScreeningFinding, make_problem, screen
from reslearn.diagnose.plan import LR_STEP, first_rates, usual_rate

torch.manual_seed(0)
X = torch.randn(80, 6)
PAIR = X, (X[:, 0] > 0).long()


def findings(build: Callable[[], nn.Module], loss: object = None) -> dict[str, ScreeningFinding]:
    screening = screen(make_problem(build, PAIR, loss=loss))  # type: ignore[arg-type]
    assert not screening.failures
    return {finding.check: finding for finding in screening.findings}


class Body(nn.Module):
    """Two layers of which the first is trained only if `connect` passes the gradient."""

    def __init__(self, connect: Callable[[Tensor], Tensor], num_outputs: int = 2) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8, bias=False), nn.Linear(8, num_outputs, bias=False)
        self.connect = connect

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.connect(torch.relu(self.first(x))))
        return outputs


CUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "detach": lambda h: h.detach(),
    "data": lambda h: h.data,
    "NumPy": lambda h: torch.from_numpy(h.detach().numpy()),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_before_most_parameters_is_a_proof(cut: str) -> None:
    finding = findings(lambda: Body(CUTS[cut]))["parameters behind a cut"]
    assert (finding.level, finding.causes) == ("proof", ("untrained parameters",))
    assert finding.message.startswith("first.weight shape")


@pytest.mark.parametrize(("num_outputs", "is_proof"), [(6, True), (7, False)])
def test_half_of_the_values_is_the_margin_of_a_cut(num_outputs: int, is_proof: bool) -> None:
    """The first layer has 48 values, and the last 48 or 56."""
    found_cuts = findings(lambda: Body(torch.detach, num_outputs))
    assert ("parameters behind a cut" in found_cuts) == is_proof


def test_layers_that_do_not_shape_the_outputs_are_no_cut() -> None:
    def build() -> nn.Module:
        net = Body(lambda h: h)
        net.auxiliary = nn.Linear(6, 50)
        return net

    assert set(findings(build)) == {"parameters without gradient"}


class Dropping(nn.Sequential):
    """A network whose forward passes a constant on."""

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = nn.Sequential(*self)(torch.ones_like(x))
        return outputs


class RoundedByRow(nn.Module):
    """Outputs that differ between the rows of a batch, as a matrix product may round them."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + 1e-7 * torch.arange(len(x), device=x.device)[:, None])


def layers(
    activation: type[nn.Module], depth: int = 1, *, width: int = 8, start: float | None = None
) -> list[nn.Module]:
    """Return the layers of a network; `start` fills its weights."""
    parts: list[nn.Module] = [nn.Linear(6, width), activation()]
    for _ in range(depth):
        parts += [nn.Linear(width, width), activation()]
    parts.append(nn.Linear(width, 2))
    if start is not None:
        for weight in nn.Sequential(*parts).parameters():
            nn.init.constant_(weight, start)
    return parts


@pytest.mark.parametrize(
    ("build", "is_proof"),
    [
        (lambda: Dropping(*layers(nn.ReLU)), True),
        (lambda: Dropping(*layers(nn.Sigmoid, 20)), True),
        (lambda: Dropping(*layers(nn.ReLU), RoundedByRow()), True),
        (
            lambda: nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False), *layers(nn.ReLU)),
            False,
        ),
        (lambda: nn.Sequential(*layers(nn.ReLU, start=0.0)), False),
        (lambda: nn.Sequential(*layers(nn.ReLU, start=-1.0)), False),  # all units are dead
        (lambda: nn.Sequential(*layers(nn.Tanh, start=100.0)), False),  # all are saturated
        (lambda: nn.Sequential(*layers(nn.Sigmoid, 100, width=4)), False),  # the signal vanishes
        (lambda: nn.Sequential(*layers(nn.ReLU, 60, width=4)), False),
    ],
)
def test_a_forward_that_drops_its_input(build: Callable[[], nn.Module], is_proof: bool) -> None:
    assert ("inputs without effect" in findings(build)) == is_proof


def test_a_softmax_of_one_output_is_a_fault_of_the_output_layer() -> None:
    """Its outputs are 1 for all inputs too."""

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1), nn.Softmax(1))

    targets = (X[:, :1] > 0).float()
    screening = screen(make_problem(build, (X, targets), loss=functional.binary_cross_entropy))
    assert [finding.check for finding in screening.findings] == ["output layer"]


def test_equal_inputs_show_nothing() -> None:
    """The first 50 examples are copies, and only later ones tell."""
    copies = torch.cat([X[:1].expand(50, 6), X[50:]])
    problem = make_problem(lambda: nn.Sequential(*layers(nn.ReLU)), (copies, PAIR[1]))
    assert "inputs without effect" not in [finding.check for finding in screen(problem).findings]


@pytest.mark.parametrize(
    ("tail", "loss", "is_proof"),
    [
        ((), functional.nll_loss, True),
        ((nn.LogSoftmax(1),), functional.nll_loss, False),
        ((), functional.cross_entropy, False),
        ((), nn.MultiMarginLoss(), False),  # 0 at best
    ],
)
def test_a_loss_that_falls_without_limit(
    tail: tuple[nn.Module, ...], loss: object, is_proof: bool
) -> None:
    found_losses = findings(lambda: nn.Sequential(*layers(nn.ReLU), *tail), loss)
    assert ("loss without a lower bound" in found_losses) == is_proof


@pytest.mark.parametrize(
    ("lr", "has_usual"),
    [(0.1 / 4 / LR_STEP, False), (0.09 / 4 / LR_STEP, True), (6.4, False), (6.5, True)],
)
def test_the_usual_rate_is_tried_if_it_is_far_off(lr: float, has_usual: bool) -> None:
    """Rates from lr / 16 to 4 lr are tried, and searched a step further."""
    problem = make_problem(lambda: nn.Sequential(*layers(nn.ReLU)), PAIR, optimizer="sgd", lr=lr)
    rates = first_rates(problem.lr, usual_rate(problem))
    assert (rates[-1] == 0.1 and len(rates) == 5) == has_usual
