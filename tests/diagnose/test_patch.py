"""Patches: files edited or wrapped give the network of the condition "shortcuts"; where none can be written."""

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from reslearn.diagnose import (
    DiagnosisError,
    Patch,
    Problem,
    load_build,
    make_conditions,
    make_patch,
    make_problem,
    write_patch,
)
from reslearn.models import SurgeryError

torch.manual_seed(0)
DATA = torch.randn(60, 6), torch.arange(60) % 4
HEAD = "import torch.nn as nn\n"
LAYERS = "nn.Linear(6, 8), nn.ReLU(), *[one for _ in range(4) for one in (nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())], nn.Linear(8, 4)"
FUNCTIONS = {
    "one return": f"{HEAD}\ndef build():\n    net = nn.Sequential({LAYERS})\n    return net\n",
    "over many lines, with letters of more than a byte": (
        f"{HEAD}\ndef build():\n    größe = 'ü'; return (  # ä\n        nn.Sequential(\n            {LAYERS},\n        )\n    )\n"
    ),
    "two returns, and one of a function within": (
        f"{HEAD}def build(wide=False):\n    def make():\n        return [{LAYERS}]\n"
        "    if wide: return nn.Sequential(*make(), nn.Identity())\n    return nn.Sequential(*make())\n"
    ),
    "no import of torch, a future and a docstring": (
        f'"""Mine."""\nfrom __future__ import annotations\ndef build():\n    from torch import nn\n    return nn.Sequential({LAYERS})\n'
    ),
    "nothing above it": f"def build():\n    from torch import nn\n    return nn.Sequential({LAYERS})\n",
    "torch and add_shortcuts are there": (
        f"import torch\nfrom reslearn.models import add_shortcuts\nfrom torch import nn\nbuild = lambda: nn.Sequential({LAYERS})\n"
    ),
    "no newline at its end": f"{HEAD}def build(): return nn.Sequential({LAYERS})",
    "lines of Windows": f"{HEAD}def build():\n    return nn.Sequential({LAYERS})\n".replace(
        "\n", "\r\n"
    ),
    "a value named where it is returned": f"{HEAD}def build():\n    return (net := nn.Sequential({LAYERS}))\n",
}
WRAPPED = {
    "a class": f"{HEAD}class build(nn.Sequential):\n    def __init__(self):\n        super().__init__({LAYERS})\n",
    "a partial function": f"{HEAD}import functools\ndef make(n):\n    return nn.Sequential({LAYERS})\nbuild = functools.partial(make, 3)\n",
    "a decorator that keeps what it was given": (
        f"{HEAD}def register(f):\n    return lambda: nn.Sequential({LAYERS})\n@register\ndef build():\n    return None or 3\n"
    ),
    "two of one name": f"{HEAD}def build():\n    return 3\ndef build():\n    return nn.Sequential({LAYERS})\n",
}
_number = itertools.count()


def put(folder: Path, text: str) -> Path:
    """A file of a name that no test had before: Python keeps what it imported."""
    path = folder / f"stranger{next(_number)}.py"
    path.write_bytes(text.encode())
    return path


def problem_of(place: str, depth: int | None = None) -> Problem:
    return make_problem(load_build(place)[0], DATA, depth=depth)


def assert_the_same(place: str, problem: Problem, depth: int | None = None) -> None:
    """A file builds what the condition trains: state_dict and outputs of a seed."""
    wanted, got = (
        make_conditions(problem).made["shortcuts"].make(7),
        problem_of(place, depth).net(7),
    )
    assert type(got).__name__ == "GraphModule"
    ours, theirs = wanted.state_dict(), got.state_dict()
    assert list(ours) == list(theirs) == list(problem.net(7).state_dict())
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert torch.equal(wanted.eval()(DATA[0]), got.eval()(DATA[0]))


def applied(patch: Patch, folder: Path) -> None:
    done = subprocess.run(
        patch.use, cwd=folder, shell=True, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_diff_of_a_function_builds_the_network_with_shortcuts(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = put(tmp_path, FUNCTIONS[kind])
    before = file.read_bytes()
    problem = problem_of(f"{file.name}:build")
    patch = make_patch(f"{file.name}:build", problem, folder=Path("out"))
    assert (
        patch.kind == "diff"
        and patch.path == Path("out/shortcuts.patch")
        and patch.around == ("2", "8")
    )
    write_patch(patch)
    assert file.read_bytes() == before
    applied(patch, tmp_path)
    assert_the_same(f"{file.name}:build", problem)
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) <= len(before.splitlines()) + 2
    assert {line.endswith(b"\r\n") for line in lines} == {"Windows" in kind} or "no newline" in kind
    assert file.read_bytes().endswith(b"\n") == before.endswith(b"\n")


def test_a_diff_keeps_the_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    layers = LAYERS.replace("range(4)", "range(depth)")
    file = put(tmp_path, f"{HEAD}def build(depth):\n    return nn.Sequential({layers})\n")
    problem = problem_of(f"{file.name}:build", depth=8)
    patch = make_patch(f"{file.name}:build", problem, depth=8)
    assert len(patch.around) == 4
    applied(make_written(patch), tmp_path)
    assert_the_same(f"{file.name}:build", problem, depth=8)
    deeper = make_conditions(
        problem_of(f"{file.name}:build", depth=12)
    )  # a depth that was not diagnosed
    assert "and 4 more: has a shortcut already" in deeper.notes[0]


def test_a_build_that_gives_nothing_still_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = put(
        tmp_path,
        f"{HEAD}def build(wide=False):\n    if wide: return None\n    return nn.Sequential({LAYERS})\n",
    )
    problem = problem_of(f"{file.name}:build")
    applied(make_written(make_patch(f"{file.name}:build", problem)), tmp_path)
    assert_the_same(f"{file.name}:build", problem)
    assert load_build(f"{file.name}:build")[0](wide=True) is None


def make_written(patch: Patch) -> Patch:
    write_patch(patch)
    return patch


@pytest.mark.parametrize(
    "way", ["git", "git in a folder of a repository", "patch", "from elsewhere"]
)
def test_a_diff_is_applied_by_what_people_have(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my nets").mkdir()
    here = tmp_path / "my nets" if "folder" in way else tmp_path
    file = put(tmp_path / "my nets", FUNCTIONS["one return"])
    if "folder" in way:
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.chdir(here if way != "from elsewhere" else Path(sys.prefix))
    place = f"{file.relative_to(here) if way != 'from elsewhere' else file}:build"
    problem = problem_of(place)
    patch = make_written(make_patch(place, problem, path=tmp_path / "a.patch"))
    if way == "patch" and shutil.which("patch"):
        subprocess.run(["patch", "-p1", "-s", "-i", str(patch.path)], cwd=here, check=True)
    else:
        applied(patch, Path.cwd())
    assert_the_same(place, problem)


@pytest.mark.parametrize("kind", WRAPPED)
def test_what_is_no_plain_function_is_wrapped_in_a_new_file(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = f"{put(tmp_path, WRAPPED[kind]).name}:build"
    problem = problem_of(place)
    patch = make_written(make_patch(place, problem, folder=Path("out/deeper")))
    assert (
        patch.kind == "file" and patch.path.suffix == ".py" and patch.use == f"{patch.path}:build"
    )
    assert_the_same(patch.use, problem)
    with pytest.raises(
        DiagnosisError, match=r"no diff for .* can be made, .*: name a new file that ends in \.py"
    ):
        make_patch(place, problem, path=Path("other.patch"))


def test_a_new_file_is_written_where_it_is_asked_for_and_takes_a_depth(tmp_path: Path) -> None:
    layers = LAYERS.replace("range(4)", "range(depth)")
    text = f"{HEAD}def build(depth):\n    return nn.Sequential({layers})\n"
    place = f"{put(tmp_path, text)}:build"
    problem = problem_of(place, depth=6)
    patch = make_written(make_patch(place, problem, depth=6, path=tmp_path / "mine.py"))
    assert patch.kind == "file"
    assert_the_same(patch.use, problem, depth=6)


def test_installed_modules_are_wrapped_and_ours_are_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "__init__.py").touch()
    (tmp_path / "strange" / "parts.py").write_text(f"{HEAD}LAYERS = lambda: ({LAYERS})\n")
    text = "from torch import nn\nfrom .parts import LAYERS\ndef build():\n    return nn.Sequential(*LAYERS())\n"
    (tmp_path / "strange" / "nets.py").write_text(text)
    problem = problem_of("strange.nets:build")
    assert "+++ b/strange/nets.py" in make_patch("strange.nets:build", problem).text
    assert make_patch(problem.build, problem).kind == "diff"
    monkeypatch.setattr("reslearn.diagnose.patch._is_installed", lambda file: True)
    patch = make_written(make_patch("strange.nets:build", problem))
    assert (
        patch.kind == "file"
        and "from strange.nets import build as plain" in patch.text
        and "sys.path" not in patch.text
    )
    assert_the_same(patch.use, problem)


def within() -> nn.Module:
    return nn.Sequential(*eval(f"({LAYERS})", {"nn": nn}))


def test_a_build_that_lives_in_no_file_is_one_line(tmp_path: Path) -> None:
    problem = make_problem(within, DATA)
    for build, name in (
        (lambda: within(), "<lambda>"),
        (type("Net", (), {"__call__": within})(), "Net"),
        (dict, "dict"),
    ):
        with pytest.raises(DiagnosisError, match=r"no patch: .*lives in no file") as error:
            make_patch(build, problem, folder=tmp_path)
        assert name in str(error.value) and "\n" not in str(error.value)


def test_what_is_there_is_kept_unless_it_is_a_patch_of_ours(tmp_path: Path) -> None:
    place = f"{put(tmp_path, FUNCTIONS['one return'])}:build"
    problem = problem_of(place)
    for _ in range(2):
        write_patch(make_patch(place, problem, path=tmp_path / "again.patch"))
    patch = make_patch(place, problem, path=tmp_path / "mine.patch")
    (tmp_path / "mine.patch").write_text("notes")
    (tmp_path / "file").touch()
    refused = (
        (tmp_path / "mine.patch", "is there already"),
        (tmp_path, "this is none"),
        (tmp_path / "file" / "a", "cannot be written"),
    )
    for path, words in refused:
        with pytest.raises(DiagnosisError, match=words):
            make_patch(place, problem, path=path)
    with pytest.raises(DiagnosisError, match="is there already"):
        write_patch(patch)
    assert (tmp_path / "mine.patch").read_text() == "notes"


def test_a_network_that_has_shortcuts_gets_no_patch(tmp_path: Path) -> None:
    text = "from reslearn.models import build as make\ndef build():\n    return make('resnet8', num_classes=4)\n"
    place = f"{put(tmp_path, text)}:build"
    problem = make_problem(load_build(place)[0], (torch.randn(40, 3, 8, 8), torch.arange(40) % 4))
    with pytest.raises(SurgeryError, match="no block could be given a shortcut"):
        make_patch(place, problem, folder=tmp_path)
