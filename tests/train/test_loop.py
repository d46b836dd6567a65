"""The loop, `fit`, the step, the meter and the average of the weights."""

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from reslearn import models, recipes
from reslearn.models import Residual
from reslearn.train import LearningRate, NonFiniteLossError, WarmUp, fit
from reslearn.train.optimizer import build_optimizer
from reslearn.train.step import Meter, WeightAverage, batch_totals, make_step

Batches = list[tuple[Tensor, Tensor]]


def two_moons(num: int = 64) -> Batches:
    """Return two classes that no line separates, in batches of 16."""
    angle = torch.linspace(0, math.pi, num // 2)
    moon = torch.stack([angle.cos(), angle.sin()], 1)
    x = torch.cat([moon, torch.tensor([1.0, 0.5]) - moon]) * 2
    y = torch.arange(num) // (num // 2)
    order = torch.randperm(num, generator=torch.Generator().manual_seed(0))
    return list(zip(x[order].split(16), y[order].split(16), strict=True))


def small_net(num_outputs: int = 2) -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    return nn.Sequential(
        nn.Linear(2, 16), Residual(body, nn.Identity(), nn.ReLU()), nn.Linear(16, num_outputs)
    )


def test_fit_learns_classes_from_a_list_a_loader_and_a_generator() -> None:
    batches = two_moons()
    sources = (
        batches,
        torch.utils.data.DataLoader(
            [pair for x, y in batches for pair in zip(x, y, strict=True)], batch_size=16
        ),
        itertools.chain.from_iterable(itertools.repeat(batches)),
    )
    histories = []
    for source in sources:
        net = small_net()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        histories.append(
            fit(net, source, nn.CrossEntropyLoss(), optimizer, steps=120, read_every_steps=25)
        )
    assert histories[0][-1].top1_error_pct < 2 < histories[0][0].top1_error_pct
    assert histories[0] == histories[1] == histories[2]
    assert [(reading.first_step, reading.step) for reading in histories[0]] == [
        (1, 25),
        (26, 50),
        (51, 75),
        (76, 100),
        (101, 120),
    ]


def test_fit_learns_a_regression() -> None:
    x = torch.linspace(-1, 1, 64)[:, None] * torch.ones(1, 2)
    y = (3 * x[:, :1]).sin()
    net = small_net(1)
    readings = fit(net, [(x, y)], nn.MSELoss(), torch.optim.Adam(net.parameters(), 0.01), steps=300)
    assert readings[-1].loss < 0.01 < readings[0].loss
    assert all(math.isnan(reading.top1_error_pct) for reading in readings)


def test_errors_of_mixed_labels_count_against_the_likeliest_class() -> None:
    """Other targets of the same shape, as of a regression, have no errors."""
    x = torch.eye(3)
    net = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.eye(3))
    mixed = torch.tensor([[0.6, 0.4, 0.0], [0.2, 0.8, 0.0], [0.9, 0.0, 0.1]])
    errors = []
    for loss in (nn.CrossEntropyLoss(label_smoothing=0.1), nn.MSELoss()):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
        errors.append(fit(net, [(x, mixed)], loss, optimizer, steps=1)[0].top1_error_pct)
    assert errors[0] == pytest.approx(100 / 3)
    assert math.isnan(errors[1])


def test_fit_trains_a_float64_network_in_float64() -> None:
    net = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        net.weight.fill_(1.0)
    data = [(torch.ones(1, 1).double(), torch.full((1, 1), 1 - 1e-9).double())]
    (reading,) = fit(net, data, nn.MSELoss(), torch.optim.SGD(net.parameters(), 0.1), steps=1)
    assert reading.loss == pytest.approx(1e-18, rel=1e-3)


def test_fit_follows_the_schedule_and_restores_learning_rates() -> None:
    net = small_net()
    optimizer = torch.optim.SGD(
        [{"params": net[0].parameters(), "lr": 0.5}, {"params": net[2].parameters()}], lr=0.1
    )
    readings = fit(
        net,
        two_moons(),
        nn.CrossEntropyLoss(),
        optimizer,
        steps=3,
        read_every_steps=1,
        learning_rate=LearningRate(lambda step: 0.5**step),
    )
    assert [reading.lr for reading in readings] == [
        0.5,
        0.125,
    ]  # the last window covers the one that had not been read
    assert [(reading.first_step, reading.step) for reading in readings] == [(1, 1), (2, 3)]
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    assert not any("base_lr" in group for group in optimizer.param_groups)


def test_fit_trains_sparse_embeddings_and_losses_with_weights() -> None:
    net = nn.Sequential(nn.Embedding(4, 8, sparse=True), nn.Linear(8, 2))
    batches = [(torch.arange(4), torch.arange(4) % 2)]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    assert fit(net, batches, nn.CrossEntropyLoss(), optimizer, steps=4)[0].step == 4
    head = nn.Linear(8, 2)
    x = [(torch.randn(4, 8), torch.arange(4) % 2)]
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    readings = fit(nn.Identity(), x, lambda z, y: head(z).logsumexp(1).mean(), optimizer, steps=2)
    assert readings[0].step == 2


def test_fit_trains_modules_with_empty_huge_and_infinite_values() -> None:
    """Only values that training computes must be finite."""
    net = small_net().double()
    net.register_parameter("empty", nn.Parameter(torch.empty(0)))
    net.register_parameter("huge", nn.Parameter(torch.tensor(1e300, dtype=torch.float64)))
    net.register_buffer("mask", torch.full((2, 2), -math.inf))
    for name, value in (
        ("frozen mask", torch.full((2, 2), -math.inf)),
        ("quantized", torch.ones(2, dtype=torch.int8)),
        ("bits", torch.ones(2, dtype=torch.bool)),
        ("meta", torch.empty(2, device="meta")),
        ("sparse", torch.eye(2).to_sparse()),
    ):
        net.register_parameter(name, nn.Parameter(value, requires_grad=False))
    net.get_submodule("0").add_module("lazy", nn.LazyLinear(2))  # nothing calls it
    batches = [(x.double(), y) for x, y in two_moons()]
    optimizer = torch.optim.Adam(net.parameters())
    assert fit(net, batches, nn.CrossEntropyLoss(), optimizer, steps=4)[0].step == 4
    net.get_parameter("huge").data.fill_(math.inf)
    with pytest.raises(NonFiniteLossError, match="huge holds NaN or infinity after step 4"):
        fit(net, batches, nn.CrossEntropyLoss(), optimizer, steps=4)


def test_fit_reports_errors() -> None:
    net = small_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    loss = nn.CrossEntropyLoss()
    with pytest.raises(ValueError, match="batches is empty"):
        fit(net, iter(two_moons()[:2]), loss, optimizer, steps=3)
    with pytest.raises(
        ValueError, match=r"a batch of 16 cannot be cut into accumulate = 3 equal parts"
    ):
        fit(net, two_moons(), loss, optimizer, steps=1, accumulate=3)
    regression = [(torch.zeros(4, 2), torch.zeros(4, 2))]
    warm_up = LearningRate(warm_up=WarmUp(lr=0.1, error_pct=80))
    with pytest.raises(ValueError, match="warm_up waits for the training error"):
        fit(net, regression, nn.MSELoss(), optimizer, steps=3, learning_rate=warm_up)
    with pytest.raises(NonFiniteLossError, match=r"the loss is (nan|inf) between steps 1 and 5"):
        fit(
            net,
            regression,
            nn.MSELoss(),
            torch.optim.SGD(net.parameters(), lr=1e30),
            steps=20,
            read_every_steps=5,
        )


def test_warm_up_of_the_paper_waits_for_the_training_error() -> None:
    """Sec. 4.2: a small learning rate until the error is below 80 %, then the schedule."""
    net = nn.Linear(2, 2)
    with torch.no_grad():
        net.weight.copy_(torch.eye(2))
        net.bias.zero_()
    right, wrong = (
        (torch.eye(2) * 9, torch.tensor([0, 1])),
        (torch.eye(2) * 9, torch.tensor([1, 0])),
    )
    batches: Iterator[tuple[Tensor, Tensor]] = itertools.chain([wrong] * 4, itertools.repeat(right))
    frozen = torch.optim.SGD(net.parameters(), lr=1e-12)
    readings = fit(
        net,
        batches,
        nn.CrossEntropyLoss(),
        frozen,
        steps=12,
        read_every_steps=2,
        learning_rate=LearningRate(warm_up=WarmUp(lr=1e-13, error_pct=80)),
    )
    assert [reading.top1_error_pct for reading in readings] == [100, 100, 0, 0, 0, 0]
    # The third window ends below 80 % and is read one step later. The next step has the full rate.
    assert [reading.lr for reading in readings] == [1e-13, 1e-13, 1e-13, 1e-12, 1e-12, 1e-12]


def test_warm_up_with_a_number_of_steps_ignores_the_error() -> None:
    net = nn.Linear(2, 1)  # a regression, which has no error
    optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
    batches = [(torch.randn(4, 2), torch.randn(4, 1))]
    warm_up = LearningRate(warm_up=WarmUp(lr=0.01, error_pct=80, num_steps=3))
    readings = fit(
        net, batches, nn.MSELoss(), optimizer, steps=6, read_every_steps=1, learning_rate=warm_up
    )
    assert [reading.lr for reading in readings] == [
        0.01,
        0.01,
        0.01,
        0.2,
        0.2,
    ]  # the last two windows become one reading


@given(accumulate=st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_accumulation_equals_one_pass(accumulate: int) -> None:
    """This holds without normalization over the batch."""
    x, y = (
        torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(1)),
        torch.arange(12) % 10,
    )
    states = []
    for parts in (1, accumulate):
        torch.manual_seed(0)
        net = models.build("resnet8", num_classes=10, normalize=False).double()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        step = make_step(
            net,
            nn.CrossEntropyLoss(label_smoothing=0.1),
            optimizer,
            accumulate=parts,
        )
        totals = [step(x.double(), y) for _ in range(2)]
        states.append([*net.state_dict().values(), *totals])
    for one, other in zip(*states, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_weight_decay_on_weights_does_not_change_biases_and_batch_norm(name: str) -> None:
    """Without gradients, only weight decay changes parameters."""
    muon = {"filter_lr": 0.1, "nesterov": True} if name == "muon" else {}
    net = models.build("resnet8", num_classes=10)
    before = {key: value.clone() for key, value in net.named_parameters()}
    config = recipes.Optimizer.model_validate(
        {"name": name, "lr": 1.0, "momentum": 0.5, "weight_decay": 0.1, "decay": "weights", **muon}
    )
    optimizer = build_optimizer(net, config)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, value in net.named_parameters():
        if value.ndim == 1:
            assert torch.equal(value, before[key]), key
        elif name == "sgd":
            torch.testing.assert_close(value, before[key] * 0.9)
    everything = build_optimizer(models.build("resnet8", num_classes=10), recipes.Optimizer())
    assert [group["weight_decay"] for group in everything.param_groups] == [1e-4]
    assert len(everything.param_groups[0]["params"]) == len(before)


def test_average_follows_its_formula() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = WeightAverage(net, decay=0.5)
    expected = {key: value.clone().double() for key, value in net.state_dict().items()}
    for update in range(12):
        with torch.no_grad():
            for value in net.state_dict().values():
                value.add_(1 if value.dtype == torch.int64 else torch.randn_like(value))
        average.update()
        decay = min(0.5, (1 + update) / (10 + update))
        for key, value in net.state_dict().items():
            expected[key] = (
                decay * expected[key] + (1 - decay) * value
                if value.is_floating_point()
                else value.clone().double()
            )
    for key, value in average.network.state_dict().items():
        torch.testing.assert_close(value.double(), expected[key], rtol=1e-5, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in average.network.parameters())


@given(every=st.integers(1, 9), total=st.integers(1, 40), resume_at=st.integers(0, 40))
def test_every_step_is_in_exactly_one_reading(every: int, total: int, resume_at: int) -> None:
    """Readings arrive one step late, the last one at once. Restoring a state changes nothing."""
    meter = Meter(every=every, device="cpu")
    readings = []
    for step in range(1, total + 1):
        reading = meter.add(
            torch.tensor([2.0 * step, 1.0, 2.0], dtype=torch.float64),
            step=step,
            lr=step / 10,
            is_last=step == total,
        )
        if reading is not None:
            assert step - reading.step == (0 if step == total else 1)
            readings.append(reading)
        if step == resume_at:
            state, meter = meter.state_dict(), Meter(every=every, device="cpu")
            meter.load_state_dict(state)
    covered = [step for reading in readings for step in range(reading.first_step, reading.step + 1)]
    assert covered == list(range(1, total + 1))
    for reading in readings:
        assert reading.loss == pytest.approx((reading.first_step + reading.step) / 2)
        assert (reading.top1_error_pct, reading.lr) == (50.0, reading.step / 10)


def test_totals_of_a_batch() -> None:
    outputs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert batch_totals(torch.tensor(0.5), outputs, torch.tensor([0, 1, 1])).tolist() == [
        1.5,
        1.0,
        3.0,
    ]
