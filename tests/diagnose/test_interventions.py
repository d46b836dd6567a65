"""Variants for causes other than depth, and containers of torch that are opened."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from reslearn.diagnose import Problem, make_problem, make_variants
from reslearn.diagnose.containers import with_open_containers
from reslearn.diagnose.interventions import (
    bare,
    clipped,
    initialized,
    linear_score,
    standardized,
    warmed_up,
    without_output_activation,
)
from reslearn.diagnose.trial import CLIP_NORM, WORST_SCORE, _lr_factor, run_trial
from reslearn.diagnose.variant import Regime

torch.manual_seed(0)
X = torch.randn(120, 6)
Y = torch.arange(120) % 4


class Functional(nn.Module):
    """Its output activation is a function call."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.last(torch.relu(self.first(x))))


class Shared(nn.Module):
    """One activation module is used in the middle and at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.act = nn.Linear(6, 8), nn.Linear(8, 4), nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.last(self.act(self.first(x))))  # type: ignore[no-any-return]


def chain(*end: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4), *end)


@pytest.mark.parametrize(
    "build",
    [
        lambda: chain(nn.ReLU()),
        lambda: chain(nn.Softmax(1)),
        lambda: chain(nn.Tanh(), nn.Sigmoid()),
        Functional,
        Shared,
    ],
)
def test_the_activation_behind_the_last_weights_is_removed(build: type[nn.Module]) -> None:
    net = build().eval()
    changed = without_output_activation(net, X[:4])
    assert changed is not None
    captured: list[Tensor] = []
    last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    last.register_forward_hook(lambda module, inputs, output: captured.append(output))
    net(X[:4])
    assert torch.equal(changed.eval()(X[:4]), captured[0])
    assert [name for name, _ in changed.named_parameters()] == [
        name for name, _ in net.named_parameters()
    ]


@pytest.mark.parametrize("end", [(), (nn.LogSoftmax(1),), (nn.Dropout(0.1),)])
def test_nothing_is_removed_from_free_outputs_and_log_probabilities(
    end: tuple[nn.Module, ...],
) -> None:
    assert without_output_activation(chain(*end), X[:4]) is None


def test_there_is_no_bare_network_for_a_loss_of_probabilities() -> None:
    def build() -> nn.Module:
        return chain(nn.Sigmoid())

    targets = functional.one_hot(Y, 4).float()
    probabilities = make_problem(build, (X, targets), loss=functional.binary_cross_entropy)
    assert bare(probabilities) is None
    assert bare(make_problem(build, (X, targets))) is not None


def problem_of(
    build: type[nn.Module] | None = None, data: tuple[Tensor, Tensor] = (X, Y)
) -> Problem:
    return make_problem(build or chain, data)


def test_new_weights_follow_hes_rule_and_the_seed() -> None:
    problem = make_problem(lambda: nn.Sequential(nn.Linear(6, 800), nn.Linear(800, 4)), (X, Y))
    first, again, other = (initialized(problem).make(seed) for seed in (0, 0, 1))
    weights = [net[1].weight.detach() for net in (first, again, other)]  # type: ignore[index]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert float(weights[0].std()) == pytest.approx((2 / 800) ** 0.5, rel=0.1)
    assert not first[1].bias.any()  # type: ignore[index]


def test_standardized_inputs_have_mean_0_and_deviation_1() -> None:
    inputs = standardized(problem_of(data=(X * 300 + 7, Y))).problem.inputs
    assert torch.allclose(inputs.mean(0), torch.zeros(6), atol=1e-4)
    assert torch.allclose(inputs.std(0), torch.ones(6), atol=1e-4)


def test_warm_up_rises_and_clipped_gradients_are_short() -> None:
    factors = [_lr_factor(step, 100, warms_up=True) for step in (0, 10, 19, 20, 60)]
    assert factors == sorted(factors) and factors[0] < 0.06 and factors[3] == 1
    assert [_lr_factor(step, 100) for step in (0, 60)] == [1, 1]
    problem = problem_of(data=(X * 1e3, Y))
    assert warmed_up(problem).regime == Regime(warms_up=True)
    assert clipped(problem).regime == Regime(clips_gradients=True)
    net = problem.net(0)
    before = [weight.detach().clone() for weight in net.parameters()]
    run_trial(
        problem,
        net,
        variant="clipped",
        lr=0.1,
        seed=0,
        steps=2,
        regime=Regime(clips_gradients=True),
    )
    change = sum(
        float((old - new.detach()).square().sum())
        for old, new in zip(before, net.parameters(), strict=True)
    )
    assert 0 < change**0.5 <= 0.1 * CLIP_NORM * (1 + 1.9)  # two steps, momentum 0.9


def test_a_linear_model_is_compared_only_with_networks_of_as_many_parameters() -> None:
    targets = (X[:, 0] > 0).long() + 2 * (X[:, 1] > 0).long()
    large, small = (
        make_problem(lambda w=w: nn.Sequential(nn.Linear(6, w), nn.Linear(w, 4)), (X, targets))
        for w in (3, 2)
    )  # 37 and 26 parameters; a linear model has 28
    assert linear_score(large) < 0.3
    assert linear_score(small) == WORST_SCORE


class Tagger(nn.Module):
    """A transformer of torch, whose encoder torch.fx records as one piece."""

    def __init__(self, *, masks: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.embed = nn.Linear(3, 8)
        self.encoder = nn.TransformerEncoder(layer, 5, norm=nn.LayerNorm(8))
        self.head = nn.Linear(8, 4)
        self.masks = masks

    def forward(self, x: Tensor) -> Tensor:
        masks = {}
        if self.masks:
            masks["src_key_padding_mask"] = torch.zeros(x.shape[:2], dtype=torch.bool)
        return self.head(self.encoder(self.embed(x), **masks)[:, 0])  # type: ignore[no-any-return]


TOKENS = torch.randn(40, 4, 3)


def test_an_encoder_of_torch_is_opened_so_that_its_layers_can_be_removed() -> None:
    net = Tagger()
    opened = with_open_containers(net, TOKENS)
    assert opened is not net
    assert list(opened.state_dict()) == list(net.state_dict())
    assert torch.allclose(opened.eval()(TOKENS), net.eval()(TOKENS), atol=1e-5)
    variants = make_variants(make_problem(Tagger, (TOKENS, torch.arange(40) % 4)))
    assert variants.removed_blocks == ("encoder.layers.1", "encoder.layers.2", "encoder.layers.4")
    assert "shallow" in variants.by_name


def test_a_container_stays_closed_if_the_rebuilt_network_cannot_replace_it() -> None:
    net = Tagger(masks=True)
    assert with_open_containers(net, TOKENS) is net
    plain = chain()
    assert with_open_containers(plain, X) is plain
