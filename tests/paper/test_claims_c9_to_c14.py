"""The rules of C9 to C14 on made-up numbers, with cases on either side of every margin."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stub_engine import around, no_fit

from reslearn import models, paper
from reslearn.paper.claims import c09, c10, c11, c12, c13, c14
from reslearn.paper.trained import Trained
from reslearn.study import Comparison, summary

NAN = math.nan


@pytest.fixture
def nothing_trained(tmp_path: Path) -> Trained:
    return Trained(budget=paper.demo(), folder=tmp_path, fit=no_fit)


@pytest.mark.parametrize(
    ("ratios", "means", "control_ratio", "outcome"),
    [
        ([0.5, 2.0, 99.0], [0.5, 14.0], 1e-5, "shown"),
        ([0.5, 2.0, 99.0], [0.5, 14.0], 1.0, "undecided"),
        ([0.5, 150.0, 60.0], [0.5, 95.0], 1e-5, "undecided"),
        ([150.0, 200.0], [173.0], 1e-5, "not shown"),
        ([0.005, 0.001], [0.002], 1e-5, "not shown"),
        ([NAN], [NAN], 1e-5, "not shown"),
        # The bounds belong to the healthy range.
        ([100.0, 0.01], [100.0, 0.01], 1e-5, "shown"),
        ([100.1], [1.0], 1e-5, "undecided"),
        ([0.0099], [1.0], 1e-5, "undecided"),
        ([100.0], [100.1], 1e-5, "not shown"),
        ([0.01], [0.0099], 1e-5, "not shown"),
        ([1.0], [1.0], 0.0099, "shown"),
        ([1.0], [1.0], 0.01, "undecided"),
        ([1.0], [1.0], 100.1, "shown"),
    ],
)
def test_c9_wants_healthy_ratios_and_a_sensitive_measure(
    ratios: list[float], means: list[float], control_ratio: float, outcome: str
) -> None:
    assert c09.decide(ratios, means, control_ratio=control_ratio) == outcome


def comparison(low: float, high: float, *, num_diverged: int = 0) -> Comparison:
    return Comparison(
        difference=(low + high) / 2,
        interval_low=low,
        interval_high=high,
        p=None,
        n_a=3,
        n_b=3,
        paired=True,
        num_diverged=num_diverged,
    )


ONE_PAIR = replace(comparison(1.0, 1.0), interval_low=None, interval_high=None)


@pytest.mark.parametrize(
    ("difference", "is_unchanged", "outcome"),
    [
        (comparison(1.1, 1.5), True, "shown"),
        (comparison(1.1, 1.5), False, "undecided"),
        (comparison(-0.5, -0.4), False, "undecided"),
        (comparison(-0.5, 3.0), True, "undecided"),
        (comparison(0.001, 0.0201), True, "shown"),  # mean 0.01055
        (comparison(0.001, 0.0189), True, "undecided"),  # mean 0.00995
        (comparison(0.001, 0.0101), True, "undecided"),
        (comparison(0.001, 0.0099), True, "not shown"),
        (comparison(-0.001, 0.1), True, "undecided"),
        (ONE_PAIR, True, "undecided"),
    ],
)
def test_c10_wants_a_lower_loss_of_the_constructed_network(
    difference: Comparison, is_unchanged: bool, outcome: str
) -> None:
    assert c10.decide(difference, is_unchanged) == outcome


@pytest.mark.parametrize(
    ("fits", "responses", "outcome"),
    [
        (comparison(0.70, 3), comparison(0.01, 0.3), "shown"),  # log 2 = 0.693
        (comparison(0.69, 3), comparison(0.01, 0.3), "undecided"),
        (comparison(0.70, 3), comparison(-0.01, 0.3), "undecided"),
        (comparison(0.70, 3), comparison(-0.4, 0.01), "undecided"),
        (comparison(0.70, 3), comparison(-0.4, -0.01), "not shown"),
        (comparison(-3, 0.01), comparison(0.1, 0.3), "undecided"),
        (comparison(-3, -0.01), comparison(0.1, 0.3), "not shown"),
        (comparison(0.70, 3), None, "undecided"),
        # Fits support neither side if one of them diverged.
        (comparison(0.70, 3, num_diverged=1), comparison(0.1, 0.3), "undecided"),
        (comparison(-3, -1, num_diverged=1), comparison(0.1, 0.3), "undecided"),
        (comparison(0.70, 3, num_diverged=1), comparison(-0.4, -0.1), "not shown"),
    ],
)
def test_c11_weighs_fits_and_responses(
    fits: Comparison, responses: Comparison | None, outcome: str
) -> None:
    assert c11.decide(fits, responses) == outcome


def test_c12_counts_the_papers_networks(nothing_trained: Trained) -> None:
    result = c12.measure(nothing_trained)
    assert result.outcome == "shown"
    rows = {row["depth"]: row for row in result.numbers["rows"]}
    assert rows[20]["parameters"] == rows[20]["plain_parameters"] == 269_722
    assert rows[34]["macs"] == rows[34]["plain_macs"]
    assert rows[20]["additions"] == 3 * (16 * 32 * 32 + 32 * 16 * 16 + 64 * 8 * 8)


def test_c12_is_not_shown_for_projections(
    nothing_trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = models.build

    def build_projections(*args: Any, **switches: Any) -> models.Network:
        if "shortcut" in switches:
            switches["shortcut"] = "B"
        return build(*args, **switches)

    monkeypatch.setattr(models, "build", build_projections)
    monkeypatch.setattr(c12, "_SHAPES", {20: (3, 32, 32)})
    result = c12.measure(nothing_trained)
    assert result.outcome == "not shown"
    assert "different parameters" in result.measured


def test_c12_at_its_margin(nothing_trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(additions_pct: float) -> str | None:
        counts = dict.fromkeys(("parameters", "plain_parameters", "macs", "plain_macs"), 100)
        row = {"depth": 20, **counts, "additions_pct": additions_pct}
        monkeypatch.setattr(c12, "_row", lambda depth: row)
        return c12.measure(nothing_trained).outcome

    assert (outcome(0.99), outcome(1.01)) == ("shown", "not shown")


@pytest.mark.parametrize(
    ("violations", "errors", "outcome"),
    [
        ([], {8: [1, 2, 1], 56: [3, 4, 5]}, "shown"),
        (["nesterov"], {8: [1, 2, 1]}, "not shown"),
        ([], {8: [1, 2, 1], 56: [80, 81, 82]}, "not shown"),
        ([], {8: [1, 2, 1], 56: [3, 80, 5]}, "undecided"),
        ([], {8: [1, 2, NAN]}, "undecided"),
        ([], {8: [80, 81, NAN]}, "not shown"),
        ([], {8: [1]}, "undecided"),
        ([], {8: around(44.99)}, "shown"),
        ([], {8: around(45.01)}, "not shown"),
        ([], {8: around(45.0)}, "undecided"),
    ],
)
def test_c13_wants_the_solver_unchanged_and_half_the_error_of_guessing(
    violations: list[str], errors: dict[int, list[float]], outcome: str
) -> None:
    summaries = {depth: summary(values) for depth, values in errors.items()}
    assert c13.decide(violations, summaries, guessing_pct=90) == outcome


def test_c13_names_the_changes_to_the_solver() -> None:
    recipe = {
        "model": {"name": "resnet56"},
        "optimizer": {"name": "sgd", "nesterov": False, "momentum": 0.9},
        "schedule": {"warm_up_lr": None},
        "train": {"ema": None},
    }
    assert c13.solver_changes(recipe) == []
    muon = {"name": "muon", "nesterov": True, "momentum": 0}
    assert c13.solver_changes({**recipe, "optimizer": muon, "train": {"ema": 0.99}}) == [
        "optimizer.name = muon",
        "optimizer.momentum = 0",
        "optimizer.nesterov = true",
        "train.ema is set",
    ]


@pytest.mark.parametrize(("model", "num_changes"), [("resnet104", 1), ("resnet110", 0)])
def test_c13_allows_the_warm_up_from_110_layers_on(model: str, num_changes: int) -> None:
    recipe = {
        "model": {"name": model},
        "optimizer": {"name": "sgd", "nesterov": False, "momentum": 0.9},
        "schedule": {"warm_up_lr": 0.01},
        "train": {"ema": None},
    }
    assert c13.solver_changes(recipe) == ["schedule.warm_up_lr is set"][:num_changes]


@pytest.mark.parametrize(
    ("gain", "gain_by_training", "means", "outcome"),
    [
        (comparison(1.01, 9), comparison(0.01, 8), [20, 10, 10.99, 9], "shown"),
        (comparison(1.01, 9), comparison(0.01, 8), [20, 10, 11.01, 9], "undecided"),
        (comparison(0.99, 9), comparison(0.01, 8), [20, 10, 9, 9], "undecided"),
        (comparison(1.01, 9), comparison(-0.01, 8), [20, 10, 9, 9], "undecided"),
        (comparison(-2, 0.99), comparison(0.01, 8), [20, 10, 9, 9], "not shown"),
        (comparison(-2, 1.01), comparison(0.01, 8), [20, 10, 9, 9], "undecided"),
        (comparison(1.01, 9), comparison(-8, -0.01), [20, 10, 9, 9], "not shown"),
        (comparison(1.01, 9), comparison(-8, 0.01), [20, 10, 9, 9], "undecided"),
        (ONE_PAIR, ONE_PAIR, [20, 10, 9, 9], "undecided"),
    ],
)
def test_c14_wants_a_steady_gain_by_training(
    gain: Comparison, gain_by_training: Comparison, means: list[float], outcome: str
) -> None:
    assert c14.decide(gain, gain_by_training, means) == outcome
