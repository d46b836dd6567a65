"""The documentation site is complete and consistent. Needs neither MkDocs nor a network."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MODULES = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py")}
PAGES = sorted(DOCS.glob("*.md"))
ROOT_PAGES = sorted(ROOT.glob("*.md"))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", flags=re.DOTALL)
# Pages whose Python blocks form one program. Other pages have tests of their own.
RUNNABLE = [
    "tutorial",
    "fit",
    "add_shortcuts",
    "complexity",
    "features",
    "tensorboard",
    "runs",
    "predict",
    "evaluate",
]


def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    slugs = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)
    return set(slugs)


@pytest.mark.parametrize("page", [*PAGES, *ROOT_PAGES], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    for target in LINK.findall(text):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{page.name}: {target}"


def test_navigation_holds_every_page_once() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    navigation = re.findall(r"([\w-]+\.md)$", config, flags=re.MULTILINE)
    assert len(navigation) == len(set(navigation))
    assert {page.name for page in PAGES} <= set(navigation)
    names = {page.name for page in [*PAGES, *ROOT_PAGES]}
    assert set(navigation) <= names


def test_generated_pages_are_up_to_date() -> None:
    command = [sys.executable, str(DOCS / "generate.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_reference_names_exist_and_are_documented() -> None:
    names = re.findall(r"^::: (reslearn\S+)$", (DOCS / "api.md").read_text(), flags=re.MULTILINE)
    assert len(names) > 20
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert f"{name.replace('.', '/')}.py" not in MODULES, f"{name} is a module: name the object"
        value = getattr(importlib.import_module(module), attribute)
        assert value.__doc__, name


@pytest.mark.parametrize("name", RUNNABLE)
def test_examples_of_a_page_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, f"{name}.md", "exec"), namespace)


def test_the_python_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    assert float(capsys.readouterr().out) < 20


def test_the_glossary_names_files_that_exist() -> None:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \|[^|]+\| `([^`]+)` \|$", text, flags=re.MULTILINE)
    assert len(rows) > 40
    missing = [path for _, path in rows if not (ROOT / "src" / "reslearn" / path).exists()]
    assert not missing
    names = [name for name, _ in rows]
    assert len(names) == len(set(names)), "one name means one concept"
