"""The rules, verdict by verdict, on scores written by hand."""

from dataclasses import replace
from typing import Any

import pytest

from reslearn.diagnose import RULES, Scores, decide
from reslearn.diagnose.verdict import suspect

FIELDS = (
    *("gradient_ratios", "dead_shares", "fault", "held_at_half", "num_layers", "narrows"),
    *("untrained", "output_layer"),
)


def seeds(mean: float, num_seeds: int = 4) -> list[float]:
    """Return scores near a mean; all variants share the deviations of a seed."""
    return [mean + deviation for deviation in (0.0, 0.01, -0.01, 0.005)[:num_seeds]]


def make_scores(
    neighbors: float = 0.3,
    num_seeds: int = 4,
    held_out: dict[str, float] | None = None,
    **means: Any,
) -> Scores:
    """Return scores with the given training means, as `deep=0.9`.

    Held-out scores are 0.02 higher than training scores, unless `held_out` gives them.
    """
    fields = {name: means.pop(name) for name in FIELDS if name in means}
    held_means = {name: mean + 0.02 for name, mean in means.items()} | (held_out or {})
    held_scores = {name: seeds(held_means[name], num_seeds) for name in means}
    return Scores(
        train={name: seeds(mean, num_seeds) for name, mean in means.items()},
        held_out=held_scores,
        held_at_half=fields.pop("held_at_half", held_scores),
        neighbors=neighbors,
        looks=4,
        **fields,
    )


# As ResNet-56 on CIFAR-10: worse than its shallower form by 0.1, and better by 0.1 than that form
# was after half of the steps.
SLOW = make_scores(deep=0.6, shallow=0.5, held_at_half={"deep": seeds(0.8), "shallow": seeds(0.72)})
CASES: dict[str, tuple[str, Scores]] = {
    "a healthy network": ("healthy", make_scores(deep=0.1, shallow=0.12, shortcuts=0.1)),
    "shortcuts improve it, but depth does not hurt": (
        "healthy",
        make_scores(deep=0.1, shallow=0.12, shortcuts=0.01),
    ),
    "too few layers for depth to hurt": ("healthy", make_scores(deep=0.4, num_layers=4)),
    "too few layers, and nothing learned": (
        "undecided",
        make_scores(deep=1.0, neighbors=0.3, num_layers=4),
    ),
    "many layers that cannot be removed": ("undecided", make_scores(deep=0.4, num_layers=20)),
    "an unknown number of layers": ("undecided", make_scores(deep=0.4)),
    "plain and deep": ("degradation", make_scores(deep=0.7, shallow=0.2, shortcuts=0.1)),
    "slower than the shallower one, by less than half": ("healthy", SLOW),
    "slower, and not surely by less than half": (
        "undecided",
        replace(SLOW, held_out={**SLOW.held_out, "deep": [0.55, 0.75, 0.62, 0.64]}),
    ),
    "stuck where the shallower one was after half of the steps": (
        "degradation",
        replace(SLOW, held_out={**SLOW.held_out, "deep": seeds(0.7)}),
    ),
    "so deep that the shallower one learns nothing either": (
        "degradation",
        make_scores(deep=1.0, shallow=1.0, shallowest=0.2, shortcuts=0.1),
    ),
    "nothing learns": (
        "undecided",
        make_scores(deep=1.0, shallow=1.0, shallowest=1.0, shortcuts=1.0, neighbors=0.3),
    ),
    "not too small, since it fits with shortcuts": (
        "undecided",
        make_scores(deep=1.0, shallow=1.0, shortcuts=0.1, wide=0.05, held_out={"wide": 0.2}),
    ),
    "degradation at guessing with healthy gradients": (
        "degradation",
        make_scores(deep=0.99, shallow=0.2, gradient_ratios=[(2.0, 1.0)] * 4),
    ),
    "no gradient arrives": (
        "vanishing or exploding signal",
        make_scores(deep=0.99, shallow=0.2, gradient_ratios=[(1e-6, 1e-6)] * 4),
    ),
    "gradients explode": (
        "vanishing or exploding signal",
        make_scores(deep=0.99, shallow=0.2, gradient_ratios=[(1e6, None)] * 4),
    ),
    "gradients recover": (
        "degradation",
        make_scores(deep=0.99, shallow=0.2, gradient_ratios=[(1e-6, 0.5)] * 4),
    ),
    "badly initialized": (
        "vanishing or exploding signal",
        make_scores(deep=0.9, shallow=0.9, initialized=0.2),
    ),
    "dead": (
        "dead units",
        make_scores(deep=0.9, shallow=0.9, initialized=0.2, dead_shares=[0.8] * 4),
    ),
    "a rate that is too high": (
        "bad learning rate",
        make_scores(deep=0.1, shallow=0.1, given=0.8),
    ),
    "nothing is learned at any rate, though one diverges": (
        "undecided",
        make_scores(deep=1.0, shallow=1.0, given=2.0),
    ),
    "a rate that only overfits less": (
        "overfitting",
        make_scores(deep=0.1, num_layers=4, given=0.4, held_out={"deep": 1.3, "given": 0.9}),
    ),
    "depth before learning rate": (
        "degradation",
        make_scores(deep=0.7, shallow=0.1, given=0.9),
    ),
    "unscaled": ("data fault", make_scores(deep=0.7, shallow=0.7, standardized=0.1)),
    "nothing to be learned": (
        "data fault",
        make_scores(neighbors=1.02, deep=0.2, shallow=0.3, held_out={"deep": 1.4, "shallow": 1.3}),
    ),
    "constant inputs": ("data fault", make_scores(fault="inputs do not vary", deep=0.1)),
    "layers that no optimizer gets": (
        "untrained parameters",
        make_scores(untrained="self.hidden is a list.", deep=0.1),
    ),
    "a softmax too many": ("output layer", make_scores(output_layer="The loss is bounded.")),
    "a bottleneck inside a removed block": (
        "undecided",
        make_scores(deep=0.7, shallow=0.2, narrows="3 narrows 32 values to 1"),
    ),
    "few layers, and too small": (
        "capacity too small",
        make_scores(deep=0.6, num_layers=3, wide=0.05, held_out={"wide": 0.3}),
    ),
    "nothing separates depth from width": (
        "undecided",
        make_scores(deep=0.6, num_layers=22, wide=0.05, held_out={"wide": 0.3}),
    ),
    "too small": (
        "capacity too small",
        make_scores(deep=0.6, shallow=0.6, wide=0.05, held_out={"wide": 0.3}),
    ),
    "regularized too much": (
        "too much regularization",
        make_scores(deep=1.0, shallow=1.0, unregularized=0.1),
    ),
    "overfitted": (
        "overfitting",
        make_scores(
            deep=0.01, shallow=0.01, held_out={"deep": 0.6}, held_at_half={"deep": seeds(0.4)}
        ),
    ),
    "overfitted before half of the steps, and worse than guessing": (
        "overfitting",
        make_scores(deep=0.0, num_layers=4, held_out={"deep": 3.0}),
    ),
    "held-out loss high, but neither rising nor worse than guessing": (
        "healthy",
        make_scores(deep=0.0, num_layers=4, held_out={"deep": 0.8}),
    ),
    "one seed": ("undecided", make_scores(num_seeds=1, deep=0.7, shallow=0.2)),
    "nothing yet": ("undecided", Scores(train={}, held_out={}, held_at_half={}, neighbors=1.0)),
    "noise": (
        "undecided",
        Scores(
            train={"deep": [0.1, 0.9, 0.3], "shallow": [0.5, 0.2, 0.1]},
            held_out={"deep": [0.5] * 3, "shallow": [0.5] * 3},
            held_at_half={"deep": [0.5] * 3},
            neighbors=0.3,
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_rule_gives_its_verdict(name: str) -> None:
    expected, scores = CASES[name]
    verdict = decide(scores)
    assert verdict.name == expected, verdict.reason
    assert verdict.reason.endswith((".", "?"))


@pytest.mark.parametrize(
    ("case", "verdict"),
    [
        ("plain and deep", "undecided"),
        ("a rate that is too high", "undecided"),
        ("a healthy network", "healthy"),
    ],
)
def test_longer_trials_must_confirm_what_short_trials_suggest(case: str, verdict: str) -> None:
    expected, scores = CASES[case]
    short = replace(scores, is_short=True)
    assert suspect(short).name == expected and decide(short).name == verdict
    if verdict == "undecided":
        assert decide(short).reason.startswith(f"Short trials suggest {expected}")


def test_only_longer_trials_show_that_a_network_is_slow() -> None:
    assert suspect(replace(SLOW, is_short=True)).name == "degradation"
    assert decide(replace(SLOW, is_short=True)).name == "undecided"
    assert decide(SLOW).reason == (
        "The deep network has training loss 0.60 ± 0.01, and the shallow network has 0.50 ± 0.01: "
        "a difference of +0.10 [+0.10, +0.10] (98.75 %), 4 seeds. "
        "It is slow, not degraded: on held-out data it has 0.62 ± 0.01, and the shallow network "
        "had 0.72 ± 0.01 after half of the steps, a difference of -0.10 [-0.10, -0.10] (98.75 %)."
    )


def test_capacity_is_too_small_only_if_depth_surely_does_not_hurt() -> None:
    train = {"deep": [1.0, 0.7, 1.0], "shallow": [0.2, 0.2, 0.25], "wide": [0.03] * 3}
    scores = Scores(train=train, held_out=train, held_at_half=train, neighbors=0.3, looks=4)
    assert decide(scores).name == "undecided"


def test_every_verdict_has_a_rule_and_a_case() -> None:
    assert {name for name, _ in RULES} == {expected for expected, _ in CASES.values()}


def test_more_looks_need_more_certainty() -> None:
    train = {"deep": [0.30, 0.34, 0.38], "shallow": [0.2, 0.21, 0.22]}
    held_out = {"deep": [0.3] * 3, "shallow": [0.3] * 3}
    verdicts = []
    for looks in (1, 50):
        scores = Scores(
            train=train, held_out=held_out, held_at_half=held_out, neighbors=0.2, looks=looks
        )
        verdicts.append(decide(scores).name)
    assert verdicts == ["degradation", "undecided"]


# Each written margin: one case just inside and one just outside. All seeds of a case differ by the
# same amount, so intervals are points. 0.001 is far above the rounding of floating-point numbers.
INSIDE, OUTSIDE = 0.049, 0.051


def slow(lead: float) -> Scores:
    """A network that is worse, and better by `lead` than the shallow one at half of the steps."""
    half = {"deep": seeds(0.8), "shallow": seeds(0.6 + lead)}
    return make_scores(deep=0.6, shallow=0.5, held_out={"deep": 0.6}, held_at_half=half)


def overfitting(gap: float, rise: float, deep: float = 0.0) -> Scores:
    held_out = deep + gap
    half = {"deep": seeds(held_out - rise)}
    return make_scores(deep=deep, num_layers=4, held_out={"deep": held_out}, held_at_half=half)


def degraded_at_guessing(ratio: float, deep: float = 0.99) -> Scores:
    return make_scores(deep=deep, shallow=0.2, gradient_ratios=[(ratio, ratio)] * 4)


def too_small(lead: float, deep_minus_shallow: float = 0.0, **fields: Any) -> Scores:
    """A network that a wide one beats by `lead`, the wide one on held-out data."""
    held_out = {"wide": 0.6 - lead}
    shallow = 0.6 - deep_minus_shallow
    return make_scores(deep=0.6, shallow=shallow, wide=0.05, held_out=held_out, **fields)


MARGINS: dict[str, tuple[str, Scores, str, Scores]] = {
    "worse than the shallow network": (
        "healthy",
        make_scores(deep=0.3 + INSIDE, shallow=0.3),
        "degradation",
        make_scores(deep=0.3 + OUTSIDE, shallow=0.3),
    ),
    "worse than on standardized inputs": (
        "healthy",
        make_scores(deep=0.3, shallow=0.3, standardized=0.3 - INSIDE),
        "data fault",
        make_scores(deep=0.3, shallow=0.3, standardized=0.3 - OUTSIDE),
    ),
    "worse than with newly initialized weights": (
        "healthy",
        make_scores(deep=0.3, shallow=0.3, initialized=0.3 - INSIDE),
        "vanishing or exploding signal",
        make_scores(deep=0.3, shallow=0.3, initialized=0.3 - OUTSIDE),
    ),
    "newly initialized, worse than the shallow network": (
        "vanishing or exploding signal",
        make_scores(deep=0.9, initialized=0.3 + INSIDE, shallow=0.3),
        "degradation",
        make_scores(deep=0.9, initialized=0.3 + OUTSIDE, shallow=0.3),
    ),
    "worse at the given learning rate": (
        "healthy",
        make_scores(deep=0.3, shallow=0.3, given=0.3 + INSIDE),
        "bad learning rate",
        make_scores(deep=0.3, shallow=0.3, given=0.3 + OUTSIDE),
    ),
    "no variant beats guessing": (
        "healthy",
        make_scores(neighbors=1.0, deep=0.3, shallow=0.3, held_out={"deep": 1 - OUTSIDE}),
        "data fault",
        make_scores(
            neighbors=1.0, deep=0.3, shallow=0.3, held_out={"deep": 1 - INSIDE, "shallow": 1.0}
        ),
    ),
    "no nearest neighbors beat guessing": (
        "healthy",
        make_scores(neighbors=1 - OUTSIDE, deep=0.3, shallow=0.3, held_out={"deep": 1.0}),
        "data fault",
        make_scores(
            neighbors=1 - INSIDE, deep=0.3, shallow=0.3, held_out={"deep": 1.0, "shallow": 1.0}
        ),
    ),
    "dead units": (
        "vanishing or exploding signal",
        make_scores(deep=0.9, shallow=0.9, initialized=0.2, dead_shares=[0.59] * 4),
        "dead units",
        make_scores(deep=0.9, shallow=0.9, initialized=0.2, dead_shares=[0.61] * 4),
    ),
    "gradients of the first layers too large": (
        "degradation",
        degraded_at_guessing(990.0),
        "vanishing or exploding signal",
        degraded_at_guessing(1010.0),
    ),
    "gradients of the first layers too small": (
        "degradation",
        degraded_at_guessing(1 / 990),
        "vanishing or exploding signal",
        degraded_at_guessing(1 / 1010),
    ),
    "a vanishing signal learns nothing": (
        "degradation",
        degraded_at_guessing(1e6, deep=1 - OUTSIDE - 0.00125),
        "vanishing or exploding signal",
        degraded_at_guessing(1e6, deep=1 - INSIDE - 0.00125),
    ),
    "a bad learning rate hurts what learns at the best one": (
        "undecided",
        make_scores(deep=1 - INSIDE - 0.00125, shallow=1.0, given=2.0),
        "bad learning rate",
        make_scores(deep=1 - OUTSIDE - 0.00125, shallow=1.0, given=2.0),
    ),
    "slow": ("degradation", slow(INSIDE), "healthy", slow(OUTSIDE)),
    "a wide network is better": (
        "healthy",
        too_small(INSIDE),
        "capacity too small",
        too_small(OUTSIDE),
    ),
    "too small, and worse than the shallow network": (
        "capacity too small",
        too_small(0.3, INSIDE),
        "degradation",
        too_small(0.3, OUTSIDE),
    ),
    "overfitting: the gap": (
        "healthy",
        overfitting(gap=0.149, rise=0.1),
        "overfitting",
        overfitting(gap=0.151, rise=0.1),
    ),
    "overfitting: the rise": (
        "healthy",
        overfitting(gap=0.5, rise=INSIDE),
        "overfitting",
        overfitting(gap=0.5, rise=OUTSIDE),
    ),
    "few layers": (
        "healthy",
        make_scores(deep=0.4, num_layers=5),
        "undecided",
        make_scores(deep=0.4, num_layers=6),
    ),
    "few layers, too small": (
        "capacity too small",
        make_scores(deep=0.6, num_layers=5, wide=0.05, held_out={"wide": 0.3}),
        "undecided",
        make_scores(deep=0.6, num_layers=6, wide=0.05, held_out={"wide": 0.3}),
    ),
    "fewest seeds for a data fault": (
        "healthy",
        make_scores(1.0, 2, {"deep": 1.0, "shallow": 1.0}, deep=0.3, shallow=0.3),
        "data fault",
        make_scores(1.0, 3, {"deep": 1.0, "shallow": 1.0}, deep=0.3, shallow=0.3),
    ),
}


@pytest.mark.parametrize("name", MARGINS)
def test_a_margin_separates_two_verdicts(name: str) -> None:
    first_verdict, first_scores, second_verdict, second_scores = MARGINS[name]
    first, second = decide(first_scores), decide(second_scores)
    verdicts = (first.name, second.name)
    assert verdicts == (first_verdict, second_verdict), (first.reason, second.reason)


def test_the_interval_of_a_healthy_network_must_beat_guessing_by_the_margin() -> None:
    for score, verdict in ((1 - OUTSIDE, "healthy"), (1 - INSIDE, "undecided")):
        train = {"deep": [score] * 3, "shallow": [score] * 3}
        scores = Scores(train=train, held_out=train, held_at_half=train, neighbors=0.3)
        assert decide(scores).name == verdict


def test_overfitting_below_the_rise_needs_a_loss_above_guessing() -> None:
    for held_score, verdict in ((0.999, "healthy"), (1.001, "overfitting")):
        train, held_out = {"deep": [0.2] * 3}, {"deep": [held_score] * 3}
        scores = Scores(
            train=train, held_out=held_out, held_at_half=held_out, neighbors=0.3, num_layers=4
        )
        assert decide(scores).name == verdict
