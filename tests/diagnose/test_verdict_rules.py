"""The rules, outcome by outcome, on evidence written by hand."""

from dataclasses import replace
from typing import Any

import pytest

from reslearn.diagnose import RULES, Scores, decide
from reslearn.diagnose.verdict import suspect


def around(mean: float, n: int = 4) -> list[float]:
    """Seeds about a mean that share their ups and downs with those of other conditions."""
    return [mean + shift for shift in (0.0, 0.01, -0.01, 0.005)[:n]]


def evidence(
    neighbors: float = 0.3, n: int = 4, held: dict[str, float] | None = None, **given: Any
) -> Scores:
    """`deep=0.9` is the training score; held-out ones are 0.02 higher unless given."""
    others = ("gradient_ratios", "dead_shares", "fault", "held_at_half", "num_layers", "narrows")
    extra = {key: given.pop(key) for key in others if key in given}
    train = {name: around(mean, n) for name, mean in given.items()}
    held_out = {
        name: around((held or {}).get(name, mean + 0.02), n) for name, mean in given.items()
    }
    return Scores(
        train=train,
        held=held_out,
        held_at_half=extra.pop("held_at_half", held_out),
        neighbors=neighbors,
        looks=4,
        **extra,
    )


# As ResNet-56 on CIFAR-10: 0.1 worse than its shallower form, and 0.1 better than that was at half of the steps.
SLOW = evidence(deep=0.6, shallow=0.5, held_at_half={"deep": around(0.8), "shallow": around(0.72)})
CASES: dict[str, tuple[str, Scores]] = {
    "a healthy network": ("healthy", evidence(deep=0.1, shallow=0.12, shortcuts=0.1)),
    "one that shortcuts improve but depth does not hurt": (
        "healthy",
        evidence(deep=0.1, shallow=0.12, shortcuts=0.01),
    ),
    "too few layers for depth to hurt": ("healthy", evidence(deep=0.4, num_layers=4)),
    "too few layers, and nothing learned": (
        "undecided",
        evidence(deep=1.0, neighbors=0.3, num_layers=4),
    ),
    "many layers that cannot be left out": ("undecided", evidence(deep=0.4, num_layers=20)),
    "layers that cannot be counted": ("undecided", evidence(deep=0.4)),
    "plain and deep": ("degradation", evidence(deep=0.7, shallow=0.2, shortcuts=0.1)),
    "slower than the shallower one, by less than half": ("healthy", SLOW),
    "slower, and not sure to be by less than half": (
        "undecided",
        replace(SLOW, held={**SLOW.held, "deep": [0.55, 0.75, 0.62, 0.64]}),
    ),
    "stuck where the shallower one was at half": (
        "degradation",
        replace(SLOW, held={**SLOW.held, "deep": around(0.7)}),
    ),
    "so deep that the shallower one learns nothing either": (
        "degradation",
        evidence(deep=1.0, shallow=1.0, shallowest=0.2, shortcuts=0.1),
    ),
    "nothing learns": (
        "undecided",
        evidence(deep=1.0, shallow=1.0, shallowest=1.0, shortcuts=1.0, neighbors=0.3),
    ),
    "not too small where shortcuts fit": (
        "undecided",
        evidence(deep=1.0, shallow=1.0, shortcuts=0.1, wide=0.05, held={"wide": 0.2}),
    ),
    "degradation at guessing with healthy gradients": (
        "degradation",
        evidence(deep=0.99, shallow=0.2, gradient_ratios=[(2.0, 1.0)] * 4),
    ),
    "no gradient arrives": (
        "vanishing or exploding signal",
        evidence(deep=0.99, shallow=0.2, gradient_ratios=[(1e-6, 1e-6)] * 4),
    ),
    "gradients explode": (
        "vanishing or exploding signal",
        evidence(deep=0.99, shallow=0.2, gradient_ratios=[(1e6, None)] * 4),
    ),
    "gradients recover": (
        "degradation",
        evidence(deep=0.99, shallow=0.2, gradient_ratios=[(1e-6, 0.5)] * 4),
    ),
    "badly initialized": (
        "vanishing or exploding signal",
        evidence(deep=0.9, shallow=0.9, initialized=0.2),
    ),
    "dead": ("dead units", evidence(deep=0.9, shallow=0.9, initialized=0.2, dead_shares=[0.8] * 4)),
    "a step too large": ("bad learning rate", evidence(deep=0.1, shallow=0.1, given=0.8)),
    "nothing is learned at any rate, though one diverges": (
        "undecided",
        evidence(deep=1.0, shallow=1.0, given=2.0),
    ),
    "a step that only overfits less": (
        "overfitting",
        evidence(deep=0.1, num_layers=4, given=0.4, held={"deep": 1.3, "given": 0.9}),
    ),
    "depth before step": ("degradation", evidence(deep=0.7, shallow=0.1, given=0.9)),
    "unscaled": ("data fault", evidence(deep=0.7, shallow=0.7, standardized=0.1)),
    "nothing to be learned": (
        "data fault",
        evidence(neighbors=1.02, deep=0.2, shallow=0.3, held={"deep": 1.4, "shallow": 1.3}),
    ),
    "constant inputs": ("data fault", evidence(fault="inputs do not vary", deep=0.1)),
    "a bottleneck between": (
        "undecided",
        evidence(deep=0.7, shallow=0.2, narrows="3 narrows 32 values to 1"),
    ),
    "few layers, and too small": (
        "capacity too small",
        evidence(deep=0.6, num_layers=3, wide=0.05, held={"wide": 0.3}),
    ),
    "nothing that says whether it is depth or width": (
        "undecided",
        evidence(deep=0.6, num_layers=22, wide=0.05, held={"wide": 0.3}),
    ),
    "too small": (
        "capacity too small",
        evidence(deep=0.6, shallow=0.6, wide=0.05, held={"wide": 0.3}),
    ),
    "overfitted": (
        "overfitting",
        evidence(deep=0.01, shallow=0.01, held={"deep": 0.6}, held_at_half={"deep": around(0.4)}),
    ),
    "overfitted from half-way on, and worse than guessing": (
        "overfitting",
        evidence(deep=0.0, num_layers=4, held={"deep": 3.0}),
    ),
    "held-out loss high, but neither rising nor worse than guessing": (
        "healthy",
        evidence(deep=0.0, num_layers=4, held={"deep": 0.8}),
    ),
    "one seed": ("undecided", evidence(n=1, deep=0.7, shallow=0.2)),
    "nothing yet": ("undecided", Scores(train={}, held={}, held_at_half={}, neighbors=1.0)),
    "noise": (
        "undecided",
        Scores(
            train={"deep": [0.1, 0.9, 0.3], "shallow": [0.5, 0.2, 0.1]},
            held={"deep": [0.5] * 3, "shallow": [0.5] * 3},
            held_at_half={"deep": [0.5] * 3},
            neighbors=0.3,
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_rule_gives_its_verdict(name: str) -> None:
    expected, given = CASES[name]
    verdict = decide(given)
    assert verdict.name == expected, verdict.because
    assert verdict.because


def test_what_a_short_trial_lets_suspect_is_not_told_before_a_longer_one_confirms_it() -> None:
    for name, told in {
        "plain and deep": "undecided",
        "a step too large": "undecided",
        "a healthy network": "healthy",
    }.items():
        expected, given = CASES[name]
        short = replace(given, is_short=True)
        assert suspect(short).name == expected and decide(short).name == told
    assert (
        "degradation so far, which longer trials have to confirm"
        in decide(replace(CASES["plain and deep"][1], is_short=True)).because
    )


def test_a_slow_network_is_known_by_longer_trials_alone() -> None:
    assert suspect(replace(SLOW, is_short=True)).name == "degradation"
    assert decide(replace(SLOW, is_short=True)).name == "undecided"
    told = decide(SLOW).because
    assert (
        "deep 0.60 ± 0.01, shallow 0.50 ± 0.01: +0.10" in told
        and "slow, on held-out data 0.62" in told
    )


def test_too_small_is_only_what_surely_is_not_too_deep() -> None:
    train = {"deep": [1.0, 0.7, 1.0], "shallow": [0.2, 0.2, 0.25], "wide": [0.03] * 3}
    given = Scores(train=train, held=train, held_at_half=train, neighbors=0.3, looks=4)
    assert decide(given).name == "undecided"


def test_every_verdict_has_a_rule_and_a_case() -> None:
    assert {name for name, _ in RULES} == {expected for expected, _ in CASES.values()}


def test_more_looks_ask_for_more() -> None:
    given = {"deep": [0.30, 0.34, 0.38], "shallow": [0.2, 0.21, 0.22]}
    held = {"deep": [0.3] * 3, "shallow": [0.3] * 3}
    once, often = (
        Scores(train=given, held=held, held_at_half=held, neighbors=0.2, looks=looks)
        for looks in (1, 50)
    )
    assert decide(once).name == "degradation"
    assert decide(often).name == "undecided"
