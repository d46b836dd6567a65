"""Run folders become rows and a table, and notes describe the runs that are not averaged."""

from pathlib import Path
from typing import Any

import pytest

from reslearn import recipes
from reslearn.runs import RunFolder
from reslearn.study import (
    Collection,
    collect,
    degradation_verdict,
    degradation_verdicts,
    depth_rows,
    table,
)


def write(
    folder: Path, model: str, seed: int, error: float | None, *overrides: str, **environment: Any
) -> None:
    recipe = recipes.load("digits", overrides=[f"model.name={model}", f"seed={seed}", *overrides])
    run = RunFolder.create(
        folder / f"{model}-{seed}-{recipes.recipe_hash(recipe.to_dict())}",
        recipe.to_dict(),
        environment,
    )
    run.append_metrics({"kind": "train", "step": 50, "epoch": 1.0, "loss": 2.0})
    if error is not None:
        result: dict[str, Any] = {
            "train_recomputed_top1_error_pct": error,
            "test_top1_error_pct": error + 1,
        }
        run.finish({**result, "validation_top1_error_pct": None})


def test_a_row_holds_model_seed_recipe_and_result(tmp_path: Path) -> None:
    write(tmp_path, "plain56", 3, 12.5)
    row = collect(tmp_path).rows[0]
    assert (row.model, row.depth, row.kind, row.seed) == ("plain56", 56, "plain", 3)
    assert row.result["test_top1_error_pct"] == 13.5
    assert row.recipe["data"]["name"] == "digits"


def test_seeds_are_averaged_and_models_are_not(tmp_path: Path) -> None:
    for seed, error in enumerate([10.0, 12.0]):
        write(tmp_path, "resnet56", seed, error / 10)
        write(tmp_path, "plain56", seed, error * 2)
        write(tmp_path, "plain20", seed, error)
    study_table = table(collect(tmp_path).rows)
    assert [group.model for group in study_table.groups] == ["plain20", "plain56", "resnet56"]
    first = study_table.groups[0]
    assert first.seeds == (0, 1)
    assert first.summaries["train_recomputed_top1_error_pct"].mean == 11.0
    assert first.summaries["test_top1_error_pct"].n == 2
    assert "validation_top1_error_pct" not in first.summaries
    assert len({group.protocol for group in study_table.groups}) == 1
    assert study_table.notes == ()


def test_recipes_are_not_averaged_with_each_other(tmp_path: Path) -> None:
    write(tmp_path, "plain20", 0, 10.0)
    write(tmp_path, "plain56", 0, 30.0)
    write(tmp_path, "plain20", 1, 20.0, "optimizer.lr=0.05")
    study_table = table(collect(tmp_path).rows)
    assert [
        group.summaries["train_recomputed_top1_error_pct"].n for group in study_table.groups
    ] == [
        1,
        1,
        1,
    ]
    assert study_table.notes[0].startswith(
        "2 recipes, which are not averaged with one another; most follow"
    )
    assert study_table.notes[1].endswith("(plain20): optimizer.lr: 0.1 -> 0.05")
    with pytest.raises(ValueError, match=r"plain20 follow 2 recipes"):
        depth_rows(collect(tmp_path).rows, kind="plain")


def test_of_two_equally_frequent_recipes_none_is_the_majority(tmp_path: Path) -> None:
    write(tmp_path, "plain20", 0, 10.0)
    write(tmp_path, "plain20", 1, 20.0, "optimizer.lr=0.05")
    assert "the others are compared with" in table(collect(tmp_path).rows).notes[0]


def test_a_switch_of_the_model_is_another_recipe_but_a_checkpoint_interval_is_not(
    tmp_path: Path,
) -> None:
    write(tmp_path, "resnet20", 0, 10.0)
    write(tmp_path, "resnet20", 1, 11.0, "train.checkpoint_every_seconds=5")
    write(tmp_path, "resnet20", 2, 12.0, "model.shortcut=C")
    assert sorted(group.seeds for group in table(collect(tmp_path).rows).groups) == [(0, 1), (2,)]


def test_other_images_are_another_recipe_and_another_precision_is_noted(tmp_path: Path) -> None:
    write(
        tmp_path,
        "resnet20",
        0,
        10.0,
        data={"fingerprint": "a"},
        numerics={"precision": "bf16", "instruction_set": "AVX512+bf16"},
    )
    write(
        tmp_path,
        "resnet20",
        1,
        11.0,
        data={"fingerprint": "a"},
        numerics={"precision": "fp32", "instruction_set": "AVX2"},
    )
    write(
        tmp_path,
        "resnet20",
        2,
        99.0,
        data={"fingerprint": "b"},
        numerics={"precision": "fp32", "instruction_set": "AVX2"},
    )
    study_table = table(collect(tmp_path).rows)
    assert sorted(group.seeds for group in study_table.groups) == [(0, 1), (2,)]
    notes = "\n".join(study_table.notes)
    assert 'data.fingerprint: "a" -> "b"' in notes
    assert (
        "resnet20: averaged over runs of different precision: 1 bf16 on AVX512+bf16, 1 fp32 on AVX2"
        in notes
    )


def test_incomplete_runs_are_listed_and_never_averaged(tmp_path: Path) -> None:
    write(tmp_path, "plain20", 0, 10.0)
    write(tmp_path, "plain20", 1, None)
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "train.log").write_text(
        "$ reslearn train\nTraceback\nMemoryError: no memory\n"
    )
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "recipe.json").write_text("{")
    collection = collect(tmp_path)
    assert len(collection.rows) == 1
    reasons = {
        run.name.partition("-")[0]: (run.last_step, run.reason) for run in collection.incomplete
    }
    assert reasons["plain20"] == (50, "stopped after step 50")
    assert reasons["failed"] == (None, "MemoryError: no memory")
    assert "recipe.json" in reasons["damaged"][1]
    study_table = table(collection.rows, incomplete=collection.incomplete)
    assert study_table.groups[0].summaries["test_top1_error_pct"].n == 1
    assert sum("is not averaged" in note for note in study_table.notes) == 3


def diverge(folder: Path, model: str, seed: int) -> None:
    write(folder, model, seed, None)
    run = RunFolder(next(folder.glob(f"{model}-{seed}-*")))
    run.finish_diverged(60, "the loss is nan")


def test_diverged_runs_are_counted_in_their_group(tmp_path: Path) -> None:
    write(tmp_path, "plain20", 0, 10.0)
    write(tmp_path, "plain20", 1, 12.0)
    diverge(tmp_path, "plain20", 2)
    diverge(tmp_path, "plain56", 0)
    diverge(tmp_path, "plain56", 1)
    collection = collect(tmp_path)
    study_table = table(collection.rows, incomplete=collection.incomplete)
    (group,) = study_table.groups
    assert (group.seeds, group.num_diverged) == ((0, 1), 1)
    mean = group.summaries["train_recomputed_top1_error_pct"]
    assert (mean.mean, mean.n, mean.num_diverged) == (11.0, 2, 1)
    assert study_table.all_diverged == (("plain56", 2),)
    assert all(
        note.endswith("not averaged: diverged: the loss is nan") for note in study_table.notes
    )


def test_a_diverged_run_may_not_help_a_verdict(tmp_path: Path) -> None:
    """Without the diverged runs, plain56 would be no worse than plain20."""
    for seed in range(4):
        write(tmp_path, "plain20", seed, 10.0 + seed / 100)
        if seed < 3:
            write(tmp_path, "plain56", seed, 10.0 + seed / 100)
    collection = collect(tmp_path)
    assert answer(collection) == "no"
    diverge(tmp_path, "plain56", 3)
    assert answer(collect(tmp_path)) == "undecided"


def test_a_depth_whose_runs_all_diverged_is_judged(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, "plain20", seed, 10.0 + seed / 100)
        diverge(tmp_path, "plain56", seed)
    assert answer(collect(tmp_path)) == "undecided"


def answer(collection: Collection) -> str:
    verdict = degradation_verdicts(collection.rows, diverged=collection.diverged)["plain"]
    assert not isinstance(verdict, str), verdict
    return verdict.answer


def test_a_copied_run_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "a", "plain20", 0, 10.0)
    write(tmp_path / "b", "plain20", 0, 10.0)
    study_table = table(collect(tmp_path / "a", tmp_path / "b").rows)
    assert study_table.groups[0].summaries["test_top1_error_pct"].n == 1
    assert "a copy of the run in" in study_table.notes[0]


def test_from_folders_to_a_verdict(tmp_path: Path) -> None:
    for seed in range(3):
        for model, error in (
            ("plain8", 20.0),
            ("plain20", 9.0),
            ("plain56", 80.0),
            ("resnet20", 1.0),
            ("resnet56", 0.5),
        ):
            write(tmp_path, model, seed, error + 0.1 * seed)
    rows = collect(tmp_path).rows
    assert degradation_verdict(depth_rows(rows, kind="plain"), margin_pct=1).answer == "yes"
    assert degradation_verdict(depth_rows(rows, kind="residual"), margin_pct=1).answer == "no"
    with pytest.raises(ValueError, match=r"has no train_loss in its result.json"):
        depth_rows(rows, kind="plain", field="train_loss")


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no such folder"):
        collect(tmp_path / "absent")
    assert table(collect(tmp_path).rows).groups == ()
