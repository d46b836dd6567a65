"""Screening of networks: each fault is found, and its neighbor on the other side of a limit is not.

The networks have the faults of public questions: layers in a list, a second softmax, equal units.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reslearn import models
from reslearn.diagnose import DiagnosisError, make_problem
from reslearn.diagnose.call_record import record_calls
from reslearn.diagnose.findings import ScreeningFinding
from reslearn.diagnose.first_steps import (
    COLLAPSE_RATIO,
    EQUAL_DEVIATION,
    FirstSteps,
    destroys,
)
from reslearn.diagnose.output_layer import PROBABILITY_TOLERANCE, is_softmax_repeated
from reslearn.diagnose.screening import screen
from reslearn.diagnose.signal_checks import DEAD_LAYER_SHARE, SATURATION, SPREAD_LIMITS, spread

torch.manual_seed(0)
X = torch.randn(300, 6)
Y = torch.arange(300) % 4
PAIR = (X, Y)


def mlp(*tail: nn.Module, outputs: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, outputs), *tail)


def findings(
    build: Callable[[], nn.Module], data: Any = PAIR, **options: Any
) -> dict[str, ScreeningFinding]:
    """Return the findings by check. Every check must have run."""
    screening = screen(make_problem(build, data, **options))
    assert not screening.failures
    return {finding.check: finding for finding in screening.findings}


def levels(build: Callable[[], nn.Module], data: Any = PAIR, **options: Any) -> dict[str, str]:
    found_levels = findings(build, data, **options)
    return {check: finding.level for check, finding in found_levels.items()}


class Holder(nn.Module):
    """A network whose hidden layers are in `container`."""

    def __init__(self, container: Callable[[list[nn.Module]], Any], depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 12)
        self.hidden = container([nn.Linear(12, 12) for _ in range(depth)])
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        layers = self.hidden.values() if isinstance(self.hidden, dict) else self.hidden
        for layer in layers:
            x = torch.relu(layer(x))
        y: Tensor = self.head(x)
        return y


class Plain:
    """Holds layers, and is no module."""

    def __init__(self, layers: list[nn.Module]) -> None:
        self.layers = layers

    def __iter__(self) -> Any:
        return iter(self.layers)


@pytest.mark.parametrize(
    ("container", "change"),
    [
        (list, "self.hidden = nn.ModuleList([...])"),
        (tuple, "self.hidden = nn.ModuleList([...])"),
        (lambda layers: dict(enumerate(layers)), "self.hidden = nn.ModuleDict({...})"),
        (Plain, "Assign the modules in it to attributes of Holder"),
        (nn.ModuleList, ""),
        (lambda layers: nn.Sequential(*layers), ""),
    ],
)
def test_layers_that_are_not_registered_are_named(container: Any, change: str) -> None:
    found_proofs = findings(lambda: Holder(container))
    if not change:
        assert "unregistered parameters" not in found_proofs
        return
    proof = found_proofs["unregistered parameters"]
    assert proof.level == "proof" and proof.attribute == "self.hidden"
    assert proof.causes == ("untrained parameters",) and change in proof.message
    assert "6 tensors with 468 values" in proof.evidence
    file, _, line = proof.location.rpartition(":")
    assert "self.hidden = container" in Path(file).read_text().splitlines()[int(line) - 1]


class Custom(nn.Module):
    """A network with one more attribute, and a forward that may use it."""

    def __init__(self, change: Callable[[Any], None], use: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.body = nn.Linear(6, 12)
        self.head = nn.Linear(12, 4)
        self.use = use
        change(self)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.relu(self.use(self, self.body(x))))
        return y


def keep(net: Any) -> None:
    """Change nothing."""


def hold_tensor(net: Any) -> None:
    net.scale = torch.ones(12, requires_grad=True)


def hold_frozen(net: Any) -> None:
    net.teacher = [nn.Linear(12, 12).requires_grad_(False)]


def hold_aliases(net: Any) -> None:
    net.layers = [net.body, net.head]


def create_late(net: Any, x: Tensor) -> Tensor:
    if not hasattr(net, "late"):
        net.late = nn.Linear(12, 12)
    y: Tensor = net.late(x)
    return y


@pytest.mark.parametrize(
    ("change", "use", "check", "words"),
    [
        (hold_tensor, lambda net, x: x * net.scale, "unregistered parameters", "nn.Parameter(...)"),
        (keep, lambda net, x: nn.Linear(12, 12)(x), "unregistered parameters", "forward creates"),
        (keep, create_late, "late parameters", "late.weight is created at the first call"),
        (hold_frozen, lambda net, x: net.teacher[0](x), "", ""),
        (hold_aliases, lambda net, x: x, "", ""),
    ],
)
def test_trainable_tensors_that_no_optimizer_gets(
    change: Any, use: Any, check: str, words: str
) -> None:
    found_proofs = findings(lambda: Custom(change, use))
    assert list(found_proofs) == ([check] if check else [])
    if check:
        assert found_proofs[check].level == "proof" and words in found_proofs[check].message


def test_a_network_whose_layers_are_all_in_a_list_is_refused_by_name() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(6, 4)]

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layers[0](x)
            return y

    with pytest.raises(DiagnosisError, match=r"to train: self.layers of Listed is a list"):
        make_problem(Listed, PAIR)


def test_a_network_that_cuts_every_gradient_is_refused() -> None:
    with pytest.raises(DiagnosisError, match="forward cuts it"):
        make_problem(Cut, PAIR)


class Cut(nn.Sequential):
    """A network without a gradient."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y: Tensor = super().forward(x)
        return y


def test_an_optimizer_without_the_parameters_is_a_proof() -> None:
    elsewhere = mlp()

    def ignoring(parameters: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(elsewhere.parameters(), lr=lr)

    assert levels(mlp, optimizer=ignoring, lr=0.1) == {"optimizer without parameters": "proof"}
    assert not levels(mlp, optimizer="adam", lr=1e-3)


@pytest.mark.parametrize(("num_outputs", "level"), [(5, "note"), (6, "proof")])
def test_an_optimizer_without_most_parameters_is_a_proof(num_outputs: int, level: str) -> None:
    """It leaves out 5 of 11 values, or 6 of 12: half is the margin."""

    def build() -> nn.Module:
        layers = nn.Linear(6, 8, bias=False), nn.ReLU(), nn.Linear(8, num_outputs, bias=False)
        return nn.Sequential(*layers)

    def first_only(parameters: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(list(parameters)[:1], lr=lr)

    finding = findings(build, optimizer=first_only, lr=0.1)["optimizer without some parameters"]
    assert (finding.attribute, finding.level) == ("2.weight", level)


class Scaled(nn.Module):
    """Multiplies the hyperbolic tangent by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * torch.tanh(x)


def log_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.nll_loss(outputs.clamp_min(1e-12).log(), targets)


BINARY = (X, (X[:, 0] > 0).float())
VALUES = (X, X[:, 0])


def regressor(*tail: nn.Module) -> nn.Module:
    return mlp(nn.Flatten(0), *tail, outputs=1)


@pytest.mark.parametrize(
    ("build", "data", "options", "level"),
    [
        (lambda: mlp(nn.Softmax(1)), PAIR, {}, "proof"),
        (lambda: mlp(nn.Sigmoid()), PAIR, {}, "proof"),
        (lambda: mlp(nn.LogSoftmax(1)), PAIR, {}, ""),
        (lambda: mlp(nn.Dropout(0.5)), PAIR, {}, ""),
        (lambda: mlp(nn.ReLU()), PAIR, {}, ""),  # a large right logit is enough
        # The least loss is log(1 + 3 exp(-2 factor)): 0.23, 0.17, 0.057 and 0.043 of guessing.
        (lambda: mlp(Scaled(1.05)), PAIR, {}, "proof"),
        (lambda: mlp(Scaled(1.2)), PAIR, {}, "suspicion"),
        (lambda: mlp(Scaled(1.8)), PAIR, {}, "suspicion"),
        (lambda: mlp(Scaled(1.95)), PAIR, {}, ""),
        (lambda: regressor(nn.Sigmoid()), BINARY, {"loss": functional.binary_cross_entropy}, ""),
        (
            lambda: regressor(nn.Sigmoid()),
            BINARY,
            {"loss": functional.binary_cross_entropy_with_logits},
            "proof",
        ),
        (lambda: regressor(nn.Sigmoid()), BINARY, {}, ""),
        (lambda: regressor(nn.ReLU()), VALUES, {}, "proof"),
        (lambda: regressor(nn.ReLU(inplace=True)), (X, 500 * X[:, 0].abs()), {}, ""),
        (lambda: regressor(nn.Tanh()), (X, torch.tanh(X[:, 0])), {}, ""),
        (lambda: regressor(nn.Tanh()), (X, 3 * X[:, 0]), {}, "proof"),
        (lambda: regressor(), (X, 500 * X[:, 0]), {}, ""),
    ],
)
def test_an_output_layer_that_bounds_the_loss(
    build: Callable[[], nn.Module], data: Any, options: dict[str, Any], level: str
) -> None:
    assert levels(build, data, **options).get("output layer", "") == level


def test_the_softmax_is_named_with_its_line_even_behind_control_flow() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = mlp()

        def forward(self, x: Tensor) -> Tensor:
            if x.mean() > 100:
                x = x / 2
            return torch.softmax(self.layers(x), dim=1)  # the line

    finding = findings(Branching)["output layer"]
    assert "ends in a softmax" in finding.message and finding.location in finding.message
    file, _, line = finding.location.rpartition(":")
    assert "# the line" in Path(file).read_text().splitlines()[int(line) - 1]
    ranges = findings(lambda: regressor(nn.Tanh()), (X, 3 * X[:, 0]))["output layer"]
    assert "cannot reach the targets" in ranges.message and ranges.attribute == "4"


def test_a_tail_that_needs_earlier_layers_is_not_judged() -> None:
    """Free values behind the last weights do not show what such a network can give."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value, self.gate = nn.Linear(6, 4), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            value = self.value(x)
            return torch.sigmoid(self.gate(x)) * value

    assert "output layer" not in levels(Gated)


@pytest.mark.parametrize(
    ("factor", "loss", "is_repeated"),
    [
        (1.0, None, True),
        (1 + 0.9 * PROBABILITY_TOLERANCE, None, True),
        (1 + 1.1 * PROBABILITY_TOLERANCE, None, False),
        (1.0, log_loss, False),  # this loss takes probabilities
    ],
)
def test_probabilities_under_a_loss_with_its_own_softmax(
    factor: float, loss: Any, is_repeated: bool
) -> None:
    problem = make_problem(lambda: mlp(nn.Softmax(1)), PAIR, loss=loss)
    outputs = factor * torch.softmax(torch.randn(20, 4), 1)
    assert is_softmax_repeated(problem, outputs) == is_repeated


def gains(factor: float, *, bias: float = 0.0, head: float = 1.0) -> nn.Module:
    """Return three layers, the second of which multiplies by `factor`."""
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4))
    for layer, gain in zip(net, (1.0, factor, head), strict=True):
        nn.init.eye_(layer.weight)  # type: ignore[arg-type]
        layer.weight.data.mul_(gain)  # type: ignore[operator, union-attr]
        nn.init.constant_(layer.bias, bias)  # type: ignore[arg-type]
    return net


@pytest.mark.parametrize(
    ("build", "check"),
    [
        (lambda: gains(2 * SPREAD_LIMITS[0]), ""),
        (lambda: gains(0.5 * SPREAD_LIMITS[0]), "signal that vanishes"),
        (lambda: gains(0.5 * SPREAD_LIMITS[0], bias=3.0), "signal that vanishes"),
        (lambda: gains(0.5 * SPREAD_LIMITS[1]), ""),
        (lambda: gains(2 * SPREAD_LIMITS[1]), "signal that explodes"),
        (lambda: gains(1.0, head=0.0), ""),  # a last layer of zeros, on purpose
    ],
)
def test_the_deviation_between_inputs_from_the_first_to_the_last_layer(
    build: Callable[[], nn.Module], check: str
) -> None:
    found_signals = findings(build)
    assert list(found_signals) == ([check] if check else [])
    if check:
        assert f"{Path(__file__).name}:" in found_signals[check].location


@pytest.mark.parametrize("strength", [0.9 * SATURATION, 1.1 * SATURATION])
def test_weights_that_are_so_large_that_a_sigmoid_saturates(strength: float) -> None:
    def build() -> nn.Module:
        net = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 6), nn.Linear(6, 4))
        nn.init.zeros_(net[0].weight)
        nn.init.constant_(net[0].bias, strength)
        net[0].weight.data[:, 0] = torch.arange(6) * 0.01
        nn.init.eye_(net[2].weight)
        net[2].weight.data.mul_(1e-9)
        return net

    finding = findings(build)["signal that vanishes"]
    assert ("so large that sigmoid saturates" in finding.message) == (strength > SATURATION)
    assert ("too small for this depth" in finding.message) == (strength < SATURATION)


def test_a_norm_behind_the_first_layer_takes_the_scale_of_the_inputs() -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 12), nn.Linear(12, 4)
        )

    assert list(findings(build, (X * 1e6, Y))) == ["input scale"]


def test_the_deviation_between_inputs_of_any_output() -> None:
    values = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
    assert spread(values, 2) == pytest.approx(math.sqrt(0.5))
    assert spread((values[None].transpose(0, 1).expand(2, 3, 2), None), 2) == pytest.approx(
        math.sqrt(0.5)
    )
    assert spread(values.T.reshape(1, 2, 2).transpose(1, 2), 2) == pytest.approx(math.sqrt(0.5))
    assert math.isnan(spread(torch.zeros(3, 5), 2))
    assert spread(torch.tensor([[math.nan], [1.0]]), 2) == math.inf


@pytest.mark.parametrize("num_dead", [18, 19])
def test_a_layer_with_too_many_dead_units(num_dead: int) -> None:
    def build() -> nn.Module:
        net = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 4))
        nn.init.constant_(net[0].bias[:num_dead], -1e3)  # type: ignore[arg-type, index]
        nn.init.constant_(net[0].bias[num_dead:], 1.0)  # type: ignore[arg-type, index]
        return net

    is_dead = num_dead / 20 >= DEAD_LAYER_SHARE
    found_units = findings(build)
    assert ("dead units" in found_units) == is_dead
    if is_dead:
        assert "19 of 20 units are dead" in found_units["dead units"].evidence
        assert found_units["dead units"].attribute == "1"


def zeros(activation: type[nn.Module] = nn.Sigmoid) -> nn.Module:
    net = nn.Sequential(nn.Linear(6, 12), activation(), nn.Linear(12, 4))
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    return net


def constant() -> nn.Module:
    net = mlp()
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.5)
    return net


def zero_head() -> nn.Module:
    net = mlp()
    nn.init.zeros_(net[2].weight)  # type: ignore[index]
    nn.init.zeros_(net[2].bias)  # type: ignore[index]
    return net


def zero_branch() -> nn.Module:
    """Return a residual network whose branches start at zero (Goyal et al. 2017)."""
    body = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12))
    nn.init.zeros_(body[2].weight)
    nn.init.zeros_(body[2].bias)
    return nn.Sequential(nn.Linear(6, 12), models.Residual(body), nn.Linear(12, 4))


def copies(num_copies: int, outgoing_deviation: float = 0.0) -> nn.Module:
    """Return ten units, some of which are copies of the first."""
    net = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))
    with torch.no_grad():
        net[0].weight[1:num_copies] = net[0].weight[0]  # type: ignore[index, operator]
        net[0].bias[1:num_copies] = net[0].bias[0]  # type: ignore[index, operator]
        first = net[2].weight[:, :1]  # type: ignore[index]
        deviations = 1 + outgoing_deviation * torch.linspace(-1, 1, num_copies)
        net[2].weight[:, :num_copies] = first * deviations  # type: ignore[index, operator]
    return net


@pytest.mark.parametrize(
    ("build", "are_equal"),
    [
        (zeros, True),
        (lambda: zeros(nn.ReLU), True),  # its units are dead too, which is the same fault
        (constant, True),
        (zero_head, False),
        (zero_branch, False),
        (lambda: copies(6), True),  # five of ten units repeat another
        (lambda: copies(5), False),
        (lambda: copies(6, outgoing_deviation=0.01 * EQUAL_DEVIATION), True),
        (lambda: copies(6, outgoing_deviation=100 * EQUAL_DEVIATION), False),
    ],
)
def test_units_that_start_equal_and_stay_equal(
    build: Callable[[], nn.Module], are_equal: bool
) -> None:
    found_units = findings(build)
    assert ("equal units" in found_units) == are_equal
    if are_equal:
        assert list(found_units) == ["equal units"]
        assert "Draw the initial weights at random" in found_units["equal units"].message


def test_classes_that_never_occur_keep_equal_units_in_the_last_layer() -> None:
    def build() -> nn.Module:
        net = mlp(outputs=40)
        nn.init.zeros_(net[2].weight)  # type: ignore[index]
        nn.init.zeros_(net[2].bias)  # type: ignore[index]
        return net

    assert not findings(build)


@pytest.mark.parametrize(
    ("num_units", "level"), [(10, "note"), (22, "note"), (24, "suspicion"), (60, "suspicion")]
)
def test_parameters_that_the_loss_does_not_use(num_units: int, level: str) -> None:
    """The used layers have 84 + 52 = 136 values; an unused one of n units has 6 n."""

    def add_unused(net: Any) -> None:
        net.unused = nn.Linear(5, num_units)

    found_parameters = findings(lambda: Custom(add_unused, lambda net, x: x))
    finding = found_parameters["parameters without gradient"]
    assert finding.level == level and finding.attribute == "unused.weight"


def test_a_weight_that_gets_its_first_gradient_after_a_step_is_healthy() -> None:
    def add_gate(net: Any) -> None:
        net.branch = nn.Linear(12, 12)
        net.gate = nn.Parameter(torch.zeros(1))

    assert not findings(lambda: Custom(add_gate, lambda net, x: x + net.gate * net.branch(x)))


def quadratic(outputs: Tensor, targets: Tensor) -> Tensor:
    return 0.5 * (outputs - targets).square().sum(1).mean()


@pytest.mark.parametrize(("lr", "is_high"), [(10.0, True), (0.01, False), (None, False)])
def test_a_rate_that_destroys_the_network_in_its_first_steps(
    lr: float | None, is_high: bool
) -> None:
    one_hot = functional.one_hot(Y, 4).float()
    found_rates = findings(lambda: mlp(nn.ReLU()), (X + 1, one_hot), loss=quadratic, lr=lr)
    assert ("first steps" in found_rates) == is_high


STEPS = FirstSteps(
    num_steps=12,
    equal_units=(),
    unused=(),
    without_gradient=(),
    untrained_share=0.0,
    collapse=1.0,
    diverged=False,
)


@pytest.mark.parametrize(
    ("steps", "is_high"),
    [
        (replace(STEPS, collapse=1.1 * COLLAPSE_RATIO), False),
        (replace(STEPS, collapse=0.9 * COLLAPSE_RATIO), True),
        (replace(STEPS, collapse=math.nan), False),
        (replace(STEPS, diverged=True), True),
    ],
)
def test_the_limit_of_a_collapse(steps: FirstSteps, is_high: bool) -> None:
    assert destroys(steps) == is_high


class Recurrent(nn.Module):
    """A recurrent network on sequences, with its batch on the second axis."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(2, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.cell(x.view(-1, 3, 2).transpose(0, 1))
        y: Tensor = self.head(outputs[-1])
        return y


class Encoder(nn.Module):
    """A transformer of torch on sequences of three vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(2, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.layers(self.embed(x.view(-1, 3, 2))).mean(1))
        return y


TOKENS = (torch.randint(0, 9, (300, 5), generator=torch.Generator().manual_seed(0)), Y)
PICTURES = (torch.randn(60, 3, 32, 32, generator=torch.Generator().manual_seed(0)), Y[:60])


@pytest.mark.parametrize(
    ("build", "data"),
    [
        (mlp, PAIR),
        (Recurrent, PAIR),
        (Encoder, PAIR),
        (
            lambda: nn.Sequential(nn.Embedding(9, 8), nn.Flatten(), nn.Linear(40, 4)),
            TOKENS,
        ),
        (lambda: models.build("resnet20", num_classes=4), PICTURES),
        (lambda: models.build("plain20", num_classes=4), PICTURES),
    ],
)
def test_a_healthy_network_has_no_finding(build: Callable[[], nn.Module], data: Any) -> None:
    assert not findings(build, data)


def test_a_record_names_layers_and_leaves_out_dropout() -> None:
    record = record_calls(nn.Sequential(mlp(), nn.Dropout(0.9)), X)
    assert [call.name for call in record.calls] == ["linear", "relu", "linear"]
    assert [call.module for call in record.layers] == ["0.0", "0.2"]
    assert record.is_complete and record.outputs.shape == (300, 4)
    first, second = (record_calls(nn.Dropout(0.5), X).outputs for _ in range(2))
    assert torch.equal(first, second)


def test_a_check_that_fails_on_the_network_is_listed() -> None:
    class Fragile(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if not torch.is_grad_enabled() and self.training:
                raise RuntimeError("no training without gradients")
            return super().forward(x)

    screening = screen(make_problem(lambda: Fragile(6, 4), PAIR))
    assert any("no training without gradients" in failure for failure in screening.failures)
    assert not screening.findings


def test_a_rate_is_not_blamed_for_what_the_scale_or_the_signal_explains() -> None:
    options: dict[str, Any] = {"lr": 1e3}
    assert list(findings(mlp, **options)) == ["first steps"]
    assert list(findings(mlp, (X * 100, Y), **options)) == ["input scale"]
    assert list(findings(lambda: gains(2 * SPREAD_LIMITS[1]), **options)) == [
        "signal that explodes"
    ]
