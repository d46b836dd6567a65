"""docs/paper.ipynb: committed without outputs, executed in smoke form, and whole as an HTML page with figures."""

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "paper.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
TEXT = "\n".join("".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown")


def test_it_is_committed_without_outputs() -> None:
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None
        for cell in CELLS
        if cell["cell_type"] == "code"
    )


def test_it_reads_as_the_paper_does() -> None:
    headings = [line for line in TEXT.splitlines() if line.startswith("## ")]
    assert [heading.split()[1] for heading in headings[:5]] == ["1", "3.1,", "3.3", "4.1", "4.2"]
    assert TEXT.count("> **Claim.**") >= 5 and "> **Definition (Eq. 1).**" in TEXT
    assert all(cell.count("\n") < 40 for cell in CODE[1:]), "a few lines that call the library"
    assert max(len(line) for cell in CODE for line in cell.splitlines()) <= 105, (
        "a longer line is cut on the HTML page"
    )


def test_what_it_imports_is_there() -> None:
    for node in ast.walk(ast.parse("\n".join(CODE))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reslearn"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(
                    f"{node.module}.{alias.name}"
                )


def test_committed_results_of_a_study_are_shown_with_their_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last two cells, on results as `reslearn study` leaves them; a display is not needed for it."""
    from reslearn import recipes, study
    from reslearn.report import Figure
    from reslearn.report.curves import seeds_series
    from reslearn.runs import RunFolder

    for kind, errors in (("plain", (5.0, 20.0)), ("resnet", (5.0, 3.0))):
        for depth, error in zip((20, 56), errors, strict=True):
            for seed in range(3):
                overrides = [f"model.name={kind}{depth}", f"seed={seed}", "data.size_px=16"]
                recipe = recipes.load("cifar-short", overrides=overrides).to_dict()
                run = RunFolder.create(
                    tmp_path / f"results/degradation/{kind}{depth}-seed{seed}", recipe, {}
                )
                fields = ("train_recomputed_top1_error_pct", "test_top1_error_pct")
                run.finish(dict.fromkeys(fields, error + seed / 10))
    (tmp_path / "results" / "README.md").write_text("")
    monkeypatch.chdir(tmp_path)
    shown: list[list[list[object]]] = []
    drawn: list[Figure] = []
    names = {"Path": Path, "study": study, "Figure": Figure, "seeds_series": seeds_series}
    namespace = names | {"draw": drawn.append, "show": lambda headings, rows: shown.append(rows)}
    exec("\n".join(CODE[-2:]), namespace)
    said = capsys.readouterr().out
    assert "results/cifar-fast is not at hand" in said
    assert "cifar10 at 16 px, recipe cifar-short" in said
    assert "plain nets? yes" in said and "residual nets? no" in said
    assert [row[:2] for row in shown[0]] == [
        ["plain20", 3],
        ["plain56", 3],
        ["resnet20", 3],
        ["resnet56", 3],
    ]
    bold = [(series.name, list(series.x)) for series in drawn[0].series if series.style == "line"]
    assert bold == [("plain, mean of 3 seeds", [20, 56]), ("residual, mean of 3 seeds", [20, 56])]
    assert sum(series.style == "thin" for series in drawn[0].series) == 6


@pytest.mark.slow
def test_it_runs_and_renders_with_figures(tmp_path: Path) -> None:
    for name in ("nbclient", "nbconvert", "ipykernel"):
        pytest.importorskip(name, reason='the notebook needs pip install "reslearn[test]"')
    command = [
        sys.executable,
        "-m",
        "nbconvert",
        "--to",
        "html",
        "--execute",
        "--output-dir",
        str(tmp_path),
        str(NOTEBOOK),
    ]
    done = subprocess.run(
        command,
        env=os.environ | {"RESLEARN_NOTEBOOK": "smoke", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr  # a cell that raises ends it, and is told here
    html = (tmp_path / "paper.html").read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") >= 9
    assert "6 of 6 blocks are act(F(x) + shortcut(x)) in every bit" in html
    assert "results/cifar-fast" in html and "resnet20" in html
    assert "Traceback" not in html
