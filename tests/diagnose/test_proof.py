"""Before and after on a fresh seed: what is trained, what is recommended, what page, JSON and command line say."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from reslearn.diagnose import MARGIN, Diagnosis, Patch, diagnose, experiment, make_problem
from reslearn.diagnose.budget import Clock, fitting_steps
from reslearn.diagnose.page import diagnosis_json, diagnosis_page, patch_line
from reslearn.diagnose.proof import PROOF_SEED
from reslearn.report import Page, render_html

torch.manual_seed(0)
X = torch.randn(200, 6)
Y = (X[:, 0] > 0).long() + 2 * (X[:, 1] > 0).long()
PATCH = Patch(
    kind="diff", path=Path("a.patch"), text="--- a/net.py\n", use="git apply a.patch", around=("2",)
)


def plain(depth: int) -> nn.Module:
    layers = [part for _ in range(depth) for part in (nn.Linear(12, 12), nn.ReLU())]
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), *layers, nn.Linear(12, 4))


Quick = Callable[..., Diagnosis]


@pytest.fixture
def quick(few_trials: Callable[..., None]) -> Quick:
    """As few trials as there can be."""
    few_trials(MIN_STEPS=80, MAX_STEPS=80)
    return partial(diagnose, minutes=10)


def html(page: Page) -> str:
    return render_html(page).replace("&#39;", "'")


def test_a_network_that_shortcuts_repair_is_proven_on_a_seed_of_its_own(quick: Quick) -> None:
    said: list[str] = []
    found = quick(
        make_problem(lambda: plain(16), (X, Y), lr=0.1, batch_size=32),
        with_proof=True,
        say=said.append,
    )
    proof = found.proof
    assert (
        proof is not None
        and proof.helps
        and proof.gain == proof.before.train_score - proof.after.train_score > MARGIN
    )
    assert {proof.before.seed, proof.after.seed} == {PROOF_SEED} and PROOF_SEED not in {
        trial.seed for trial in found.trials
    }
    assert [(one.condition, one.lr, one.steps) for one in (proof.before, proof.after)] == [
        (name, found.rates[condition][0], found.steps)
        for name, condition in (("before", "deep"), ("after", "shortcuts"))
    ]
    assert any("before and after on a fresh seed: about" in line for line in said)
    line = patch_line(found, PATCH)
    assert line.startswith("shortcuts help: training loss") and line.endswith(
        "the patch is recommended"
    )
    shown = html(diagnosis_page(found, command=["reslearn"], patch=PATCH))
    assert (
        shown.count(line[1:]) == 2
        and "git apply a.patch" in shown
        and "Training loss before and after" in shown
    )
    assert "Response of each layer" in shown and 'class="arc"' in shown
    told = json.loads(json.dumps(diagnosis_json(found, patch=PATCH), allow_nan=False))
    assert (
        told["proof"]["helps"]
        and told["proof"]["after"]["curve"]
        and told["patch"]["use"] == "git apply a.patch"
    )
    layers = told["layer_signals"]
    assert [len(layers[name]) for name in ("deep", "shortcuts")] == [18, 18] and all(
        one["response"] > 0 for one in layers["deep"]
    )
    assert layers["shortcuts"][0]["gradient"] > 100 * layers["deep"][0]["gradient"]

    less = replace(
        proof, after=replace(proof.after, train_score=proof.before.train_score - MARGIN / 2)
    )
    refused = replace(found, proof=less)
    assert patch_line(refused, PATCH).startswith("shortcuts did not help") and not less.helps
    shown = html(diagnosis_page(refused, command=["reslearn"], patch=PATCH))
    assert (
        "recommended" not in shown
        and "because it was asked for" in shown
        and "Shortcuts did not help" in shown
    )
    assert "The patch" not in html(diagnosis_page(found, command=["reslearn"]))


def test_nothing_is_proven_where_nothing_was_asked_or_trained(quick: Quick) -> None:
    assert quick(make_problem(lambda: plain(4), (X, Y), batch_size=32)).proof is None
    shallow = make_problem(lambda: nn.Sequential(nn.Linear(6, 4)), (X, Y), batch_size=32)
    assert quick(shallow, with_proof=True).proof is None
    still = diagnose(make_problem(lambda: plain(4), (X * 0 + 1, Y)), with_proof=True)
    assert still.proof is None
    assert "not recommended: inputs do not vary" in html(
        diagnosis_page(still, command=["reslearn"], patch=PATCH)
    )


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_the_minutes_are_shared_out_so_that_the_proof_fits_in(jobs: int) -> None:
    problem = make_problem(lambda: plain(4), (X, Y), batch_size=32)
    conditions = experiment.make_conditions(problem)
    steps, parts = {}, {}
    for with_proof in (False, True):
        clock = Clock(seconds=120)
        made = experiment._Experiment(
            problem=problem,
            conditions=conditions,
            response_ratio=None,
            clock=clock,
            say=print,
            with_proof=with_proof,
            jobs=jobs,
        )
        parts[with_proof] = made.parts()
        steps[with_proof] = fitting_steps(
            parts[with_proof], clock, lambda num: 0.1 + 0.01 * num, jobs=jobs
        )
    number = (
        len(conditions.made) + 2
    )  # the network at the rate given, and a condition that comes on the way
    assert (
        sum(num for num, _ in parts[True]) == number * (4 + 4 + 3) + 2 + 6
    )  # six to choose rates in long trials
    assert sum(num * length for num, length in parts[True]) == number * (2 + 4 + 4 * 3) + 4 * (
        2 + 6
    )

    def needed(with_proof: bool, steps: int) -> float:
        return sum(
            math.ceil(num / jobs) * (0.12 + 0.01 * length * steps)
            for num, length in parts[with_proof]
        )

    assert needed(True, steps[True]) <= 0.9 * 120 < needed(True, steps[False] + 1)
    assert needed(True, steps[True] + 1) > 0.9 * 119


@pytest.mark.slow
def test_a_patch_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("""
from torch import nn

def build(depth):
    layers = [part for _ in range(depth) for part in (nn.Linear(6, 6), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(6, 4))

def data():
    import torch
    torch.manual_seed(0)
    x = torch.randn(400, 6)
    return x, (x[:, 0] > 0).long() + 2 * (x[:, 1] > 0).long()
""")
    command = [
        sys.executable,
        "-m",
        "reslearn",
        "diagnose",
        "net.py:build",
        "--data",
        "net.py:data",
        "--depth",
        "24",
    ]
    (tmp_path / "taken.patch").write_text("mine")
    taken = subprocess.run(
        [*command, "--patch-file", "taken.patch"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        taken.returncode == 2
        and taken.stderr.count("\n") == 1
        and "taken.patch is there already" in taken.stderr
    )
    done = subprocess.run(
        [*command, "--minutes", "3", "--patch", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (
        told["proof"]["helps"]
        and told["patch"]["use"] == "git apply diagnosis/net-build/shortcuts.patch"
    )
    subprocess.run(told["patch"]["use"], cwd=tmp_path, shell=True, check=True)
    assert "add_shortcuts(nn.Sequential(" in (tmp_path / "net.py").read_text()
