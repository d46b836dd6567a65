"""Two faults of one network are mended one after another, and one patch has both repairs."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reslearn.diagnose import diagnose, load_function, make_patch, make_problem, write_patch
from reslearn.diagnose.advice import rate_line
from reslearn.diagnose.answer import answer_lines
from reslearn.diagnose.page import diagnosis_page
from reslearn.diagnose.plan import RateChoice
from reslearn.diagnose.repairs import combined
from reslearn.report import render_html

torch.manual_seed(0)
X = torch.randn(200, 6)
DATA = X, (X[:, 0] > 0).long() + 2 * (X[:, 1] > 0).long()
LIST_OF_TINY_LAYERS = """from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.hidden = [nn.Linear(16, 16) for _ in range(3)]
        self.last = nn.Linear(16, 4)
        for layer in (self.first, *self.hidden, self.last):
            nn.init.normal_(layer.weight, std=1e-3)

    def forward(self, x):
        x = self.first(x).relu()
        for layer in self.hidden:
            x = layer(x).relu()
        return self.last(x)


def build():
    return Net()
"""


def test_two_causes_are_mended_by_one_patch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(LIST_OF_TINY_LAYERS)
    problem = make_problem(load_function("tiny.py:build")[0], DATA, lr=0.1, batch_size=32)
    diagnosis = diagnose(problem, with_proof=True, steps=60)
    proof = diagnosis.proof
    assert proof is not None and proof.helps and proof.after.train_score < 0.5
    assert proof.repairs == ("registered", "initialized")
    assert [following.verdict.subcause for following in diagnosis.further] == ["vanishing"]
    assert answer_lines(diagnosis)[-1].startswith("Then: The signal vanishes")
    assert proof.text().startswith("Registered modules and new initial weights help: on a fresh")
    page = render_html(diagnosis_page(diagnosis, command=["reslearn"]))
    assert proof.text() in page and "Then: The signal vanishes" in page
    (following,) = diagnosis.further
    rates = {name: RateChoice(lr, {lr: 1.0}) for name, lr in (("deep", 0.1), ("initialized", 0.4))}
    assert rate_line(replace(following, rates=rates)) == (
        "Learning rate: the network learns at none of those tried. After the change, 0.4 is the "
        "best of them."
    )

    patch = make_patch("tiny.py:build", problem, folder=Path("out"), repair=proof.repairs)
    assert (patch.kind, patch.path) == ("diff", Path("out/repairs.patch"))
    write_patch(patch)
    subprocess.run(patch.use, cwd=tmp_path, shell=True, check=True)
    text = (tmp_path / "tiny.py").rename(tmp_path / "mended.py").read_text()
    assert "self.hidden = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)])" in text
    assert "return newly_initialized(Net())" in text
    mended = make_problem(load_function("mended.py:build")[0], DATA, lr=0.1).net(7).state_dict()
    expected = combined(proof.repairs, problem).expected
    assert expected is not None
    assert all(torch.equal(mended[name], value) for name, value in expected(7).state_dict().items())
