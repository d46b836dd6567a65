"""Before and after on a fresh seed: training, recommendation, page, JSON and command line."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from reslearn.cli import app
from reslearn.diagnose import MARGIN, Diagnosis, Patch, diagnose, make_problem
from reslearn.diagnose.diagnosis_json import diagnosis_json
from reslearn.diagnose.page import diagnosis_page, patch_line
from reslearn.diagnose.proof import PROOF_SEED
from reslearn.report import Page, render_html

torch.manual_seed(0)
X = torch.randn(200, 6)
Y = (X[:, 0] > 0).long() + 2 * (X[:, 1] > 0).long()
PATCH = Patch(
    kind="diff",
    path=Path("a.patch"),
    text="--- a/net.py\n",
    use="git apply a.patch",
    shortcuts_around=("2",),
)


def plain(depth: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Linear(6, 12), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Linear(12, 12), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(12, 4))


Quick = Callable[..., Diagnosis]


@pytest.fixture
def quick(few_trials: Callable[..., None]) -> Quick:
    """`diagnose` with as few trials as possible."""
    few_trials(MIN_STEPS=40, MAX_STEPS=40)
    return partial(diagnose, minutes=10)


@pytest.fixture
def quick_to_end(few_trials: Callable[..., None]) -> Quick:
    """`diagnose` with few trials of few steps, where the outcome of the trials is not tested."""
    few_trials(MIN_STEPS=8, MAX_STEPS=8)
    return partial(diagnose, minutes=10)


def html(page: Page) -> str:
    return render_html(page).replace("&#39;", "'")


def test_shortcuts_are_proven_on_a_separate_seed(quick: Quick) -> None:
    lines: list[str] = []
    problem = make_problem(lambda: plain(16), (X, Y), lr=0.1, batch_size=32)
    diagnosis = quick(problem, with_proof=True, say=lines.append)
    proof = diagnosis.proof
    assert proof is not None and proof.helps
    assert proof.gain == proof.before.train_score - proof.after.train_score > MARGIN
    assert proof.before.seed == proof.after.seed == PROOF_SEED
    assert PROOF_SEED not in {trial.seed for trial in diagnosis.trials}
    for trial, name, variant in (
        (proof.before, "before", "deep"),
        (proof.after, "after", "shortcuts"),
    ):
        assert (trial.variant, trial.lr) == (name, diagnosis.rates[variant].lr)
        assert trial.steps == diagnosis.steps
    assert any(line.startswith("Before and after on a fresh seed: about") for line in lines)

    line = patch_line(diagnosis, PATCH)
    assert line.startswith("Shortcuts help: on a fresh seed, the training loss is")
    assert line.endswith("The patch is recommended.")
    page = html(diagnosis_page(diagnosis, command=["reslearn"], patch=PATCH))
    assert page.count(line) == 2
    for text in ("git apply a.patch", "Training loss before and after", "Response of each layer"):
        assert text in page
    assert 'class="arc"' in page
    page = html(diagnosis_page(diagnosis, command=["reslearn"]))
    assert "The patch" not in page and "The repair" in page

    values = json.loads(json.dumps(diagnosis_json(diagnosis, patch=PATCH), allow_nan=False))
    assert values["proof"]["helps"] and values["proof"]["after"]["curve"]
    assert values["patch"]["use"] == "git apply a.patch"
    deep, shortcuts = (values["layer_signals"][name] for name in ("deep", "shortcuts"))
    assert len(deep) == len(shortcuts) == 18
    assert all(layer["response"] > 0 for layer in deep)
    assert shortcuts[0]["gradient"] > 100 * deep[0]["gradient"]


def test_a_patch_is_recommended_only_if_the_gain_exceeds_the_margin(quick_to_end: Quick) -> None:
    problem = make_problem(lambda: plain(4), (X, Y), batch_size=32)
    diagnosis = quick_to_end(problem, with_proof=True)
    assert diagnosis.proof is not None
    before, after = diagnosis.proof.before, diagnosis.proof.after
    for gain, helps in ((MARGIN - 1e-3, False), (MARGIN + 1e-3, True)):
        moved = replace(after, train_score=before.train_score - gain)
        proof = replace(diagnosis.proof, after=moved)
        diagnosis = replace(diagnosis, proof=proof)
        assert proof.helps == helps
        expected = "Shortcuts help" if helps else "Shortcuts do not help"
        assert patch_line(diagnosis, PATCH).startswith(expected)
        page = html(diagnosis_page(diagnosis, command=["reslearn"], patch=PATCH))
        assert expected in page
        assert ("The patch is recommended" in page) == helps
        assert ("because you asked for it" in page) != helps


def test_there_is_no_proof_unless_it_is_asked_for_and_possible(quick_to_end: Quick) -> None:
    quick = quick_to_end
    assert quick(make_problem(lambda: plain(4), (X, Y), batch_size=32)).proof is None
    no_blocks = make_problem(lambda: nn.Sequential(nn.Linear(6, 4)), (X, Y), batch_size=32)
    assert quick(no_blocks, with_proof=True).proof is None
    constant = diagnose(make_problem(lambda: plain(4), (X * 0 + 1, Y)), with_proof=True)
    assert constant.proof is None
    page = html(diagnosis_page(constant, command=["reslearn"], patch=PATCH))
    assert "it is not recommended: inputs do not vary" in page


@pytest.mark.parametrize(
    ("targets", "verdict", "reason"),
    [
        ("(x[:, 0] > 0).long()", "healthy", "nothing needs to be repaired"),
        ("torch.randint(2, (400,))", "data fault", "make the change that the answer names"),
    ],
)
def test_a_verdict_without_a_repair_gets_no_patch(
    targets: str,
    verdict: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = verdict.replace(" ", "_")
    (tmp_path / f"{name}_net.py").write_text(f"""
import torch
from torch import nn

def build():
    middle = (nn.Linear(12, 12), nn.ReLU())
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), *middle, nn.Linear(12, 2))

def data():
    torch.manual_seed(0)
    x = torch.randn(400, 6)
    return x, {targets}
""")
    monkeypatch.chdir(tmp_path)
    command = f"diagnose {name}_net.py:build --data {name}_net.py:data --patch --jobs 1 --steps 60"
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 0, result.output
    assert f"{verdict}: " in result.stdout
    assert f"There is no patch: {reason}." in result.stderr
    assert not list(Path(f"diagnosis/{name}_net-build").glob("*.patch"))


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

    def run(options: str) -> subprocess.CompletedProcess[str]:
        words = f"diagnose net.py:build --data net.py:data --depth 24 {options}".split()
        command = [sys.executable, "-m", "reslearn", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    (tmp_path / "notes.patch").write_text("mine")
    refused = run("--patch-file notes.patch")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "notes.patch exists already" in refused.stderr
    process = run("--minutes 3 --patch --json")
    assert process.returncode == 0, process.stderr
    values = json.loads(process.stdout)
    assert values["proof"]["helps"]
    assert values["patch"]["use"] == "git apply diagnosis/net-build/shortcuts.patch"
    subprocess.run(values["patch"]["use"], cwd=tmp_path, shell=True, check=True)
    assert "add_shortcuts(nn.Sequential(" in (tmp_path / "net.py").read_text()
