"""What changes from condition to condition of a study, and by how much the error moves."""

from pathlib import Path

import pytest
from test_collect import write

from reslearn.study import collect, compare, differences, holm


def test_settings_are_measured_against_the_plainest_condition_seed_by_seed(tmp_path: Path) -> None:
    for seed, (usual, slow) in enumerate(zip([10.0, 12.0, 11.0], [11.0, 13.5, 12.0], strict=True)):
        write(tmp_path, "resnet20", seed, usual)
        write(tmp_path, "resnet20", seed, slow, "optimizer.lr=0.05")
    write(tmp_path, "resnet20", 7, 99.0, "optimizer.lr=0.05")  # no run of that seed beside it
    (found,) = differences(collect(tmp_path).rows)
    assert found.what == "resnet20: optimizer.lr: 0.1 -> 0.05"
    assert found.comparison == compare([12.0, 14.5, 13.0], [11.0, 13.0, 12.0], paired=True)
    assert found.p == found.comparison.p


def test_residual_nets_are_measured_against_plain_ones_of_their_depth(tmp_path: Path) -> None:
    for seed in (0, 1):
        for model, error in (
            ("plain20", 10.0),
            ("resnet20", 8.0),
            ("plain56", 30.0 + seed),
            ("resnet56", 7.0),
            ("resnet110", 6.0),
        ):
            write(tmp_path, model, seed, error)
    found = differences(collect(tmp_path).rows, field="train_recomputed_top1_error_pct")
    assert {one.what: one.comparison.difference for one in found} == {
        "plain20 -> resnet20": -2.0,
        "plain56 -> resnet56": -23.5,
    }
    assert [one.p for one in found] == holm([one.comparison.p for one in found])


def test_lines_of_two_recipes_are_told_apart(tmp_path: Path) -> None:
    for switch in ((), ("optimizer.lr=0.05",)):
        for model in ("plain20", "resnet20"):
            write(tmp_path, model, 0, 10.0, *switch)
    told = [
        one.what
        for one in differences(collect(tmp_path).rows)
        if "->" in one.what and "recipe" in one.what
    ]
    assert len(told) == len(set(told)) == 2


def test_what_cannot_be_compared_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "plain20", 0, 10.0)
    write(tmp_path, "resnet20", 1, 9.0)  # another seed
    write(tmp_path, "resnet20", 2, 9.0, "optimizer.lr=0.05")  # another recipe
    rows = collect(tmp_path).rows
    assert differences(rows) == []
    assert differences(rows, field="validation_top1_error_pct") == []
    write(tmp_path, "resnet20", 0, 9.0)
    (one,) = differences(collect(tmp_path).rows)
    assert (
        one.comparison.difference == pytest.approx(-1) and one.p is None
    )  # one pair has no interval
