"""Conditions of a study are compared seed by seed."""

from pathlib import Path

import pytest
from test_collect import write

from reslearn.study import collect, compare, differences, holm


def test_recipes_are_compared_with_the_one_that_has_the_fewest_overrides(tmp_path: Path) -> None:
    for seed, (usual, slow) in enumerate(zip([10.0, 12.0, 11.0], [11.0, 13.5, 12.0], strict=True)):
        write(tmp_path, "resnet20", seed, usual)
        write(tmp_path, "resnet20", seed, slow, "optimizer.lr=0.05")
    write(tmp_path, "resnet20", 7, 99.0, "optimizer.lr=0.05")  # no run of that seed beside it
    (difference,) = differences(collect(tmp_path).rows)
    assert difference.what == "resnet20: optimizer.lr: 0.1 -> 0.05"
    assert difference.comparison == compare([12.0, 14.5, 13.0], [11.0, 13.0, 12.0], paired=True)
    assert difference.p == difference.comparison.p


def test_residual_networks_are_compared_with_plain_ones_of_the_same_depth(tmp_path: Path) -> None:
    for seed in (0, 1):
        for model, error in (
            ("plain20", 10.0),
            ("resnet20", 8.0),
            ("plain56", 30.0 + seed),
            ("resnet56", 7.0),
            ("resnet110", 6.0),
        ):
            write(tmp_path, model, seed, error)
    results = differences(collect(tmp_path).rows, field="train_recomputed_top1_error_pct")
    assert {difference.what: difference.comparison.difference for difference in results} == {
        "plain20 -> resnet20": -2.0,
        "plain56 -> resnet56": -23.5,
    }
    assert [difference.p for difference in results] == holm(
        [difference.comparison.p for difference in results]
    )


def test_names_of_differences_hold_the_recipe(tmp_path: Path) -> None:
    for switch in ((), ("optimizer.lr=0.05",)):
        for model in ("plain20", "resnet20"):
            write(tmp_path, model, 0, 10.0, *switch)
    names = [
        difference.what
        for difference in differences(collect(tmp_path).rows)
        if "->" in difference.what and "recipe" in difference.what
    ]
    assert len(names) == len(set(names)) == 2


def test_conditions_without_a_common_seed_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, "plain20", 0, 10.0)
    write(tmp_path, "resnet20", 1, 9.0)  # another seed
    write(tmp_path, "resnet20", 2, 9.0, "optimizer.lr=0.05")  # another recipe
    rows = collect(tmp_path).rows
    assert differences(rows) == []
    assert differences(rows, field="validation_top1_error_pct") == []
    write(tmp_path, "resnet20", 0, 9.0)
    (difference,) = differences(collect(tmp_path).rows)
    assert (
        difference.comparison.difference == pytest.approx(-1) and difference.p is None
    )  # one pair has no interval
