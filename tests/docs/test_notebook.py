"""docs/paper.ipynb is committed without outputs, runs in smoke form, and renders with figures."""

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


def test_the_notebook_is_committed_without_outputs() -> None:
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None
        for cell in CELLS
        if cell["cell_type"] == "code"
    )


def test_the_notebook_follows_the_sections_of_the_paper() -> None:
    headings = [line for line in TEXT.splitlines() if line.startswith("## ")]
    assert [heading.split()[1] for heading in headings[:5]] == ["1", "3.1,", "3.3", "4.1", "4.2"]
    assert TEXT.count("> **Claim.**") >= 5 and "> **Definition (Eq. 1).**" in TEXT
    assert all(cell.count("\n") < 40 for cell in CODE[1:]), "a cell has only a few lines"
    longest = max(len(line) for line in "\n".join(CODE).splitlines())
    assert longest <= 100, "the HTML page cuts off longer lines"


def test_the_imports_of_the_notebook_exist() -> None:
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
    """Run the last two cells on result folders as `reslearn study` writes them."""
    from reslearn import recipes, study
    from reslearn.report import Figure
    from reslearn.report.curves import seeds_series
    from reslearn.runs import RunFolder

    for kind, errors in (("plain", (5.0, 20.0)), ("resnet", (5.0, 3.0))):
        for depth, error in zip((20, 56), errors, strict=True):
            for seed in range(3):
                overrides = [f"model.name={kind}{depth}", f"seed={seed}", "data.size_px=16"]
                recipe = recipes.load("cifar-short", overrides=overrides).to_dict()
                folder = tmp_path / "results" / "degradation" / f"{kind}{depth}-seed{seed}"
                run = RunFolder.create(folder, recipe, {})
                fields = ("train_recomputed_top1_error_pct", "test_top1_error_pct")
                run.finish(dict.fromkeys(fields, error + seed / 10))
    (tmp_path / "results" / "README.md").write_text("")
    monkeypatch.chdir(tmp_path)
    tables: list[list[list[object]]] = []
    drawn: list[Figure] = []
    names = {"Path": Path, "study": study, "Figure": Figure, "seeds_series": seeds_series}
    namespace = names | {"draw": drawn.append, "show": lambda headings, rows: tables.append(rows)}
    exec("\n".join(CODE[-2:]), namespace)
    output = capsys.readouterr().out
    assert "results/cifar-fast is missing" in output
    assert "cifar10 at 16 px, recipe cifar-short" in output
    assert "plain networks? yes" in output and "residual networks? no" in output
    networks = ["plain20", "plain56", "resnet20", "resnet56"]
    assert [row[:2] for row in tables[0]] == [[network, 3] for network in networks]
    bold = [(series.name, list(series.x)) for series in drawn[0].series if series.style == "line"]
    assert bold == [("plain, mean of 3 seeds", [20, 56]), ("residual, mean of 3 seeds", [20, 56])]
    assert sum(series.style == "thin" for series in drawn[0].series) == 6


@pytest.mark.slow
def test_the_notebook_runs_and_renders_with_figures(tmp_path: Path) -> None:
    for name in ("nbclient", "nbconvert", "ipykernel"):
        pytest.importorskip(name, reason='the notebook needs pip install "reslearn[test]"')
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--execute"]
    command += ["--output-dir", str(tmp_path), str(NOTEBOOK)]
    process = subprocess.run(
        command,
        env=os.environ | {"RESLEARN_NOTEBOOK": "smoke", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert process.returncode == 0, process.stderr  # names the cell that failed
    html = (tmp_path / "paper.html").read_text(encoding="utf-8")
    assert html.count("data:image/png;base64,") >= 9
    assert "6 of 6 blocks are act(F(x) + shortcut(x)) in every bit" in html
    assert "results/cifar-fast" in html and "resnet20" in html
    assert "Traceback" not in html
