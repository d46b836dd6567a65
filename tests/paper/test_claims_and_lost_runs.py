"""No verdict may gain from a run that diverged and so was left out."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reslearn import paper
from reslearn.paper.claim import Runs, RunSpec
from reslearn.paper.claims import c01, c05, c07, c08
from reslearn.paper.subjects import unless_lost
from reslearn.runs import RunFolder

NAN = math.nan


def test_a_shallow_plain_net_that_diverged_does_not_speak_for_degradation() -> None:
    whole, lost = (
        [[1.0, 5.0, 40.0], [1.1, 5.2, 41.0], [0.9, 5.1, 42.0]],
        [[NAN, 5.0, 40.0], [1.1, 5.2, 41.0], [0.9, 5.1, 42.0]],
    )
    assert c01.decide((8, 20, 56), whole)[0] == c07.decide((8, 20, 56), whole)[0] == "shown"
    assert (
        c01.decide((8, 20, 56), [*lost, whole[0]])[0]
        == c07.decide((8, 20, 56), [*lost, whole[0]])[0]
        == "undecided"
    )
    ends = [[curve[0], curve[-1]] for curve in whole]
    assert c08.decide(ends, ends)[0] == "shown"
    assert c08.decide([*ends, [NAN, 40.0]], [*ends, [NAN, 40.0]])[0] == "undecided"


def test_a_shallowest_plain_net_that_diverged_does_not_speak_against_a_bend() -> None:
    saturating = [[1.0, 21.0, 24.0], [1.0, 21.2, 24.1], [1.1, 21.1, 24.2]]
    assert c07.decide((8, 20, 56), saturating)[0] == "not shown"
    assert c07.decide((8, 20, 56), [*saturating, [NAN, 21.0, 24.0]])[0] == "undecided"


def test_a_residual_net_that_diverged_does_not_speak_against_gains_from_depth() -> None:
    flat = [[4.0, 4.1, 4.2], [4.0, 4.2, 4.3], [4.1, 4.1, 4.2]]
    assert c05.decide((8, 20, 56), flat)[0] == "not shown"
    assert c05.decide((8, 20, 56), [*flat, [NAN, 4.0, 4.0]])[0] == "undecided"


@pytest.mark.parametrize("diverged", [False, True])
def test_what_cannot_be_looked_into_leaves_a_claim_undecided(
    tmp_path: Path, diverged: bool
) -> None:
    budget = replace(paper.demo(), learning_rates=(0.1,), judge_seeds=(0, 1))
    runs = {
        RunSpec(model="plain56", seed=seed, overrides=("optimizer.lr=0.1",)): RunFolder(tmp_path)
        for seed in (0, 1)[: 2 - diverged]
    }

    def no_fit(*_: Any, **__: Any) -> list[Any]:
        raise AssertionError("nothing is to be fitted")

    evidence = Runs(budget=budget, runs=runs, folder=tmp_path, fit=no_fit)
    assert unless_lost("shown", evidence, "plain56") == ("undecided" if diverged else "shown")
