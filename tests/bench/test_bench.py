"""`reslearn bench`: the measurements and their summary. No test asserts a time."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import loader, study, train
from benchmarks.contestant import matrix_product_flops, synthetic_images
from benchmarks.our_loop import Part, environment, our_loop
from typer.testing import CliRunner

import reslearn
from reslearn.cli import app
from reslearn.cli.train import HUGE_PAGES

SMALL = train.Task(model="resnet8", batch_size=16, num_images=64)
AGAINST = "plain,autocast"
ABOUT = {"precision": "bf16", "compiled": True, "warm_up_seconds": 20.0}


def turn(images: int, seconds: float, gflops: float, others_pct: float = 0.0) -> dict[str, float]:
    return {
        "images": images,
        "seconds": seconds,
        "matrix_product_flops": 1e9 * gflops,
        "others_pct": others_pct,
    }


def test_ratios_are_computed_round_by_round() -> None:
    ours = [turn(300, 1.0, 100), turn(800, 2.0, 200), turn(900, 3.0, 100)]  # 300, 400, 300 a second
    base = [turn(100, 1.0, 50), turn(100, 2.0, 50), turn(150, 1.0, 50)]  # 100, 50, 150 a second
    row = train._row(SMALL, "ours", ABOUT, ours, threads=2, ratio_to="plain", base=base)
    assert row.images_per_second == train.MedianAndRange(median=300, low=300, high=400)
    assert row.ratio == train.MedianAndRange(median=3, low=2, high=8)
    macs = macs_of("resnet8")
    assert row.share_pct.high == pytest.approx(100 * 3 * 2 * macs * 300 / 100e9)
    assert row.share_pct.low == pytest.approx(100 * 3 * 2 * macs * 400 / 200e9)
    assert (row.rounds, row.threads, row.compiled, row.warm_up_seconds) == (3, 2, True, 20.0)


def macs_of(name: str) -> int:
    from reslearn.models import build, complexity

    return complexity(build(name, num_classes=10), (3, 32, 32)).macs


def test_table_names_loops_ratio_and_threads() -> None:
    turns = [turn(300, 1.0, 100)]
    plain = train._row(
        SMALL,
        "plain",
        {**ABOUT, "precision": "fp32", "compiled": False},
        turns,
        threads=1,
        ratio_to=None,
        base=turns,
    )
    ours = train._row(
        SMALL, "ours", ABOUT, [turn(600, 1.0, 400)], threads=1, ratio_to="plain", base=turns
    )
    lines = train.table([plain, ours]).splitlines()
    assert re.match(r"resnet8 +plain +fp32 +300 \[300 to 300\] +\d+ % of 100 GFLOP/s$", lines[1])
    assert re.match(
        r"resnet8 +ours +bf16, compiled +600 \[600 to 600\] +"
        r"2.00 \[2.00 to 2.00\] of plain +\d+ % of 400 GFLOP/s$",
        lines[2],
    )
    assert "1 thread, 1 round in turns" in lines[3]
    assert len(lines) == 4


def test_the_table_warns_of_other_load_on_the_machine() -> None:
    turns = [turn(300, 1.0, 100, others_pct=share) for share in (2.0, 30.0, 40.0)]
    row = train._row(SMALL, "plain", ABOUT, turns, threads=1, ratio_to=None, base=turns)
    assert (
        train.table([row]).splitlines()[-1]
        == "disturbed: other processes took 30 % of the machine meanwhile"
    )


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script_method:DeprecationWarning"
)  # torch.compile imports it
def test_each_part_is_left_out() -> None:
    pixels, labels = synthetic_images(size_px=32, num_images=32, num_classes=10)
    chosen = {
        without: our_loop(
            "resnet20", pixels, labels, batch_size=16, device="cpu", threads=1, without=without
        ).numerics
        for without in (None, Part.bf16, Part.compile)
    }
    assert chosen[None].compiled
    assert chosen[Part.bf16].precision == "fp32" and chosen[Part.bf16].compiled
    assert (
        not chosen[Part.compile].compiled
        and chosen[Part.compile].precision == chosen[None].precision
    )
    assert environment(None).items() >= HUGE_PAGES.items()
    assert not environment(Part.huge_pages).keys() & HUGE_PAGES.keys()


@pytest.mark.parametrize("without", [Part.kept_memory, Part.fused_optimizer, Part.loader])
def test_the_loop_runs_without_a_part(without: Part) -> None:
    pixels, labels = synthetic_images(size_px=8, num_images=32, num_classes=10)
    ours = our_loop(
        "resnet8", pixels, labels, batch_size=8, device="cpu", threads=1, without=without
    )
    assert ours.run(range(2)) == 2
    assert ours.run(range(1)) == 3


def test_synthetic_images_have_every_class() -> None:
    pixels, labels = synthetic_images(size_px=4, num_images=8, num_classes=1000)
    assert pixels.shape == (8, 4, 4, 3) and pixels.dtype == np.uint8
    assert labels.max() == 999 and labels.dtype == np.int64


def test_rate_of_matrix_products_is_measured_at_least_once() -> None:
    assert matrix_product_flops(torch.float32, device="cpu", seconds=0.0) > 0


def test_tasks_have_the_shapes_of_cifar_and_imagenet() -> None:
    small, large = train.task_of("resnet56"), train.task_of("resnet50")
    assert (small.size_px, small.batch_size, small.num_classes) == (32, 128, 10)
    assert (large.size_px, large.batch_size, large.num_classes) == (224, 32, 1000)
    assert (
        train.task_of("resnet50", 256).batch_size,
        train.task_of("resnet50", 256).num_images,
    ) == (256, 512)


@pytest.mark.slow
def test_command_runs_all_loops_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[str] = []
    turn_of = train.Contestant.turn
    monkeypatch.setattr(train, "task_of", lambda name, batch_size: SMALL)
    monkeypatch.setattr(train, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(
        train.Contestant,
        "turn",
        lambda self, seconds: [rounds.append(self.name), turn_of(self, seconds)][1],
    )
    shown = CliRunner().invoke(
        app,
        [
            "bench",
            "train",
            "--models",
            "resnet8",
            "--repeats",
            "2",
            "--threads",
            "1",
            "--device",
            "cpu",
            "--json",
            "--against",
            AGAINST,
        ],
    )
    assert shown.exit_code == 0, shown.output
    rows: list[dict[str, Any]] = json.loads(shown.stdout)
    first = [f"{loop} on resnet8" for loop in ("plain", "ours", "autocast")]
    assert rounds == [*first, *reversed(first)]
    assert [(row["model"], row["loop"], row["ratio_to"], row["rounds"]) for row in rows] == [
        ("resnet8", "plain", None, 2),
        ("resnet8", "ours", "plain", 2),
        ("resnet8", "autocast", "ours", 2),
    ]
    assert [rows[0]["precision"], rows[2]["precision"]] == ["fp32", "bf16"]
    assert rows[1]["ratio"]["low"] > 0


def test_a_loop_that_dies_is_reported_in_one_line() -> None:
    no_number: Any = "many"
    with (
        train.contestant(SMALL, "plain", threads=no_number, device="cpu", without=None) as process,
        pytest.raises(OSError, match="the loop plain on resnet8 ended with status 2"),
    ):
        process.warm()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--models", "resnet20,vgg16"], "--models vgg16"),
        (["train", "--device", "abacus"], "--device abacus"),
        (
            ["train", "--against", "plain,keras", "--device", "cpu"],
            "--against keras: allowed are plain, autocast",
        ),
        (["load", "--threads", "1,two"], "--threads two"),
    ],
)
def test_a_wrong_value_is_reported_in_one_line(arguments: list[str], message: str) -> None:
    error = CliRunner().invoke(app, ["bench", *arguments]).exception
    assert isinstance(error, ValueError)
    assert str(error).startswith(message) and "\n" not in str(error)


def test_a_source_checkout_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        reslearn, "__file__", str(tmp_path / "site-packages" / "reslearn" / "__init__.py")
    )
    error = CliRunner().invoke(app, ["bench", "train"]).exception
    assert isinstance(error, ValueError)
    assert "source checkout" in str(error)


def test_loaders_are_compared_with_a_step() -> None:
    rows = loader.measure(threads=1, batch_size=4, size_px=8, rounds=1)
    assert [row.loader for row in rows] == ["in memory", "per image"]
    assert all(0 < row.share_pct < 100 for row in rows)
    assert len(loader.table(rows).splitlines()) == 2


@pytest.mark.slow
def test_a_study_is_compared_with_its_training_time() -> None:
    small = [
        "schedule.duration=2 steps",
        "schedule.milestones=[]",
        "evaluation.recompute_images=10",
    ]
    (row,) = study.measure(models=["resnet8"], seeds=2, overrides=small, jobs=1, ways=["forked"])
    assert (row.runs_start, row.runs, row.jobs) == ("forked", 2, 1)
    assert row.overhead_pct == pytest.approx(100 * (row.seconds / row.training_seconds - 1))
    assert 0 < row.training_seconds < row.seconds
    assert 0 < row.start_up_seconds < row.seconds
    assert study.table([row]).startswith("forked  2 runs, 1 at once: ")
    with pytest.raises(ValueError, match="resnet9"):
        study.measure(models=["resnet9"], seeds=1, overrides=small, jobs=1, ways=["forked"])
