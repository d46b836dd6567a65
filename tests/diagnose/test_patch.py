"""Patches: an edited or a new file builds the network of the variant "shortcuts"."""

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
    load_data,
    load_function,
    make_patch,
    make_problem,
    make_variants,
    write_patch,
)
from reslearn.diagnose.interventions import initialized
from reslearn.diagnose.repairs import Repair
from reslearn.diagnose.source_edit import with_repair
from reslearn.models import SurgeryError

torch.manual_seed(0)
DATA = torch.randn(60, 6), torch.arange(60) % 4
HEAD = "import torch.nn as nn\n"
BODY = "[m for _ in range(4) for m in (nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())]"
LAYERS = f"nn.Linear(6, 8), nn.ReLU(), *{BODY}, nn.Linear(8, 4)"
END = "nn.Linear(8, 4), nn.Sigmoid()"
ONE_RETURN = f"{HEAD}\ndef build():\n    net = nn.Sequential({LAYERS})\n    return net\n"
FUNCTIONS = {
    "one return": ONE_RETURN,
    "many lines, and letters of more than one byte": (
        f"{HEAD}\ndef build():\n    größe = 'ü'; return (  # ä\n"
        f"        nn.Sequential(\n            {LAYERS},\n        )\n    )\n"
    ),
    "two returns, and one of a nested function": (
        f"{HEAD}def build(wide=False):\n    def make():\n        return [{LAYERS}]\n"
        "    if wide: return nn.Sequential(*make(), nn.Identity())\n"
        "    return nn.Sequential(*make())\n"
    ),
    "no import of torch, a future import and a docstring": (
        '"""Mine."""\nfrom __future__ import annotations\n'
        f"def build():\n    from torch import nn\n    return nn.Sequential({LAYERS})\n"
    ),
    "nothing above the function": (
        f"def build():\n    from torch import nn\n    return nn.Sequential({LAYERS})\n"
    ),
    "torch and add_shortcuts are imported already": (
        "import torch\nfrom reslearn.models import add_shortcuts\nfrom torch import nn\n"
        f"build = lambda: nn.Sequential({LAYERS})\n"
    ),
    "no newline at the end": f"{HEAD}def build(): return nn.Sequential({LAYERS})",
    "line endings of Windows": (
        f"{HEAD}def build():\n    return nn.Sequential({LAYERS})\n".replace("\n", "\r\n")
    ),
    "an assignment inside the return": (
        f"{HEAD}def build():\n    return (net := nn.Sequential({LAYERS}))\n"
    ),
}
WRAPPED = {
    "a class": (
        f"{HEAD}class build(nn.Sequential):\n"
        f"    def __init__(self):\n        super().__init__({LAYERS})\n"
    ),
    "a partial function": (
        f"{HEAD}import functools\ndef make(n):\n    return nn.Sequential({LAYERS})\n"
        "build = functools.partial(make, 3)\n"
    ),
    "a decorator that replaces the function": (
        f"{HEAD}def register(f):\n    return lambda: nn.Sequential({LAYERS})\n"
        "@register\ndef build():\n    return None or 3\n"
    ),
    "two functions of one name": (
        f"{HEAD}def build():\n    return 3\ndef build():\n    return nn.Sequential({LAYERS})\n"
    ),
}
_numbers = itertools.count()


def write_module(folder: Path, text: str) -> Path:
    """Write a file under a name that no test used before, because Python caches its imports."""
    path = folder / f"user_module{next(_numbers)}.py"
    path.write_bytes(text.encode())
    return path


def problem_of(place: str, depth: int | None = None) -> Problem:
    return make_problem(load_function(place)[0], DATA, depth=depth)


def assert_builds_the_variant(place: str, problem: Problem, depth: int | None = None) -> None:
    """Check that `place` builds what the variant trains: state_dict and outputs of a seed."""
    expected = make_variants(problem).by_name["shortcuts"].make(7)
    net = problem_of(place, depth).net(7)
    assert type(net).__name__ == "GraphModule"
    expected_state, state = expected.state_dict(), net.state_dict()
    assert list(expected_state) == list(state) == list(problem.net(7).state_dict())
    assert all(torch.equal(expected_state[key], state[key]) for key in state)
    assert torch.equal(expected.eval()(DATA[0]), net.eval()(DATA[0]))


def apply(patch: Patch, folder: Path) -> None:
    process = subprocess.run(
        patch.use, cwd=folder, shell=True, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("case", FUNCTIONS)
def test_a_diff_of_a_function_builds_the_network_with_shortcuts(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_module(tmp_path, FUNCTIONS[case])
    before = file.read_bytes()
    problem = problem_of(f"{file.name}:build")
    patch = make_patch(f"{file.name}:build", problem, folder=Path("out"))
    assert patch.kind == "diff" and patch.path == Path("out/shortcuts.patch")
    assert patch.shortcuts_around == ("2", "8")
    write_patch(patch)
    assert file.read_bytes() == before
    apply(patch, tmp_path)
    assert_builds_the_variant(f"{file.name}:build", problem)
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) <= len(before.splitlines()) + 2
    if case != "no newline at the end":
        assert {line.endswith(b"\r\n") for line in lines} == {"Windows" in case}
    assert file.read_bytes().endswith(b"\n") == before.endswith(b"\n")


def test_a_diff_passes_the_depth_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    layers = LAYERS.replace("range(4)", "range(depth)")
    file = write_module(tmp_path, f"{HEAD}def build(depth):\n    return nn.Sequential({layers})\n")
    place = f"{file.name}:build"
    problem = problem_of(place, depth=8)
    patch = make_patch(place, problem, depth=8)
    assert len(patch.shortcuts_around) == 4
    write_patch(patch)
    apply(patch, tmp_path)
    assert_builds_the_variant(place, problem, depth=8)
    # At another depth than the diagnosed one there are shortcuts too.
    deeper = make_variants(problem_of(place, depth=12))
    assert "and 4 more: has a shortcut already" in deeper.notes[0]


def test_a_build_that_returns_none_still_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        f"{HEAD}def build(wide=False):\n    if wide: return None\n"
        f"    return nn.Sequential({LAYERS})\n"
    )
    place = f"{write_module(tmp_path, text).name}:build"
    problem = problem_of(place)
    patch = make_patch(place, problem)
    write_patch(patch)
    apply(patch, tmp_path)
    assert_builds_the_variant(place, problem)
    assert load_function(place)[0](wide=True) is None


@pytest.mark.parametrize("way", ["git", "git, below the top of a repository", "patch", "elsewhere"])
def test_a_diff_can_be_applied_by_git_and_by_patch(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module_folder = tmp_path / "my nets"
    module_folder.mkdir()
    file = write_module(module_folder, ONE_RETURN)
    here, name = tmp_path, str(file.relative_to(tmp_path))
    if "below" in way:
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
        here, name = module_folder, file.name
    elif way == "elsewhere":
        here, name = Path(sys.prefix), str(file)
    monkeypatch.chdir(here)
    problem = problem_of(f"{name}:build")
    patch = make_patch(f"{name}:build", problem, path=tmp_path / "a.patch")
    write_patch(patch)
    if way == "patch" and shutil.which("patch"):
        subprocess.run(["patch", "-p1", "-s", "-i", str(patch.path)], cwd=here, check=True)
    else:
        apply(patch, Path.cwd())
    assert_builds_the_variant(f"{name}:build", problem)


@pytest.mark.parametrize("case", WRAPPED)
def test_a_build_that_is_no_plain_function_gets_a_new_file(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = f"{write_module(tmp_path, WRAPPED[case]).name}:build"
    problem = problem_of(place)
    patch = make_patch(place, problem, folder=Path("out/deeper"))
    write_patch(patch)
    assert patch.kind == "file" and patch.path.suffix == ".py"
    assert patch.use == f"{patch.path}:build"
    assert_builds_the_variant(patch.use, problem)
    with pytest.raises(DiagnosisError, match=r"no diff can be made .* new file that ends in \.py"):
        make_patch(place, problem, path=Path("other.patch"))


def test_a_new_file_is_written_where_it_is_asked_for_and_takes_a_depth(tmp_path: Path) -> None:
    layers = LAYERS.replace("range(4)", "range(depth)")
    text = f"{HEAD}def build(depth):\n    return nn.Sequential({layers})\n"
    place = f"{write_module(tmp_path, text)}:build"
    problem = problem_of(place, depth=6)
    patch = make_patch(place, problem, depth=6, path=tmp_path / "mine.py")
    write_patch(patch)
    assert patch.kind == "file"
    assert_builds_the_variant(patch.use, problem, depth=6)


def test_modules_are_edited_and_installed_ones_get_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "__init__.py").touch()
    (tmp_path / "strange" / "parts.py").write_text(f"{HEAD}LAYERS = lambda: ({LAYERS})\n")
    (tmp_path / "strange" / "nets.py").write_text(
        "from torch import nn\nfrom .parts import LAYERS\n"
        "def build():\n    return nn.Sequential(*LAYERS())\n"
    )
    problem = problem_of("strange.nets:build")
    assert "+++ b/strange/nets.py" in make_patch("strange.nets:build", problem).text
    assert make_patch(problem.build, problem).kind == "diff"
    monkeypatch.setattr("reslearn.diagnose.patch._is_installed", lambda file: True)
    patch = make_patch("strange.nets:build", problem)
    write_patch(patch)
    assert patch.kind == "file" and "from strange.nets import build as original" in patch.text
    assert "sys.path" not in patch.text
    assert_builds_the_variant(patch.use, problem)


def build_here() -> nn.Module:
    return nn.Sequential(*eval(f"({LAYERS})", {"nn": nn}))


def test_a_build_that_no_file_defines_is_refused(tmp_path: Path) -> None:
    problem = make_problem(build_here, DATA)
    for build, name in (
        (lambda: build_here(), "<lambda>"),
        (type("Net", (), {"__call__": build_here})(), "Net"),
        (dict, "dict"),
    ):
        with pytest.raises(DiagnosisError, match=f"no patch: no file defines .*{name}") as error:
            make_patch(build, problem, folder=tmp_path)
        assert "\n" not in str(error.value)


def test_an_existing_file_is_overwritten_only_if_it_is_a_patch(tmp_path: Path) -> None:
    place = f"{write_module(tmp_path, ONE_RETURN)}:build"
    problem = problem_of(place)
    for _ in range(2):
        write_patch(make_patch(place, problem, path=tmp_path / "repeated.patch"))
    patch = make_patch(place, problem, path=tmp_path / "mine.patch")
    (tmp_path / "mine.patch").write_text("notes")
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "mine.patch", "exists already"),
        (tmp_path, "is not a file"),
        (tmp_path / "file" / "a", "cannot be written"),
    ):
        with pytest.raises(DiagnosisError, match=message):
            make_patch(place, problem, path=path)
    with pytest.raises(DiagnosisError, match="exists already"):
        write_patch(patch)
    assert (tmp_path / "mine.patch").read_text() == "notes"


def test_a_network_that_has_shortcuts_gets_no_patch(tmp_path: Path) -> None:
    text = (
        "from reslearn.models import build as make\n"
        "def build():\n    return make('resnet8', num_classes=4)\n"
    )
    place = f"{write_module(tmp_path, text)}:build"
    data = (torch.randn(40, 3, 8, 8), torch.arange(40) % 4)
    problem = make_problem(load_function(place)[0], data)
    with pytest.raises(SurgeryError, match="no block could get a shortcut"):
        make_patch(place, problem, folder=tmp_path)


def test_new_initial_weights_are_those_of_the_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_module(tmp_path, ONE_RETURN)
    problem = problem_of(f"{file.name}:build")
    place = f"{file.name}:build"
    patch = make_patch(place, problem, folder=Path("out"), repair="initialized")
    assert patch.path == Path("out/initialized.patch") and not patch.shortcuts_around
    write_patch(patch)
    apply(patch, tmp_path)
    assert "return newly_initialized(net)" in file.read_text()
    renamed = file.rename(tmp_path / f"renamed_{file.name}")  # Python caches the old one
    state = problem_of(f"{renamed.name}:build").net(7).state_dict()
    expected = initialized(problem).make(7).state_dict()
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_an_output_activation_is_removed_in_a_new_file_for_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write_module(tmp_path, WRAPPED["a class"].replace("nn.Linear(8, 4)", END))
    place = f"{file.name}:build"
    patch = make_patch(place, problem_of(place), folder=tmp_path, repair="bare")
    assert patch.kind == "file"
    write_patch(patch)
    net = problem_of(patch.use).net(0)
    assert isinstance(list(net.children())[-1], nn.Identity)
    plain = write_module(tmp_path, ONE_RETURN)
    with pytest.raises(SurgeryError, match="no module of its own"):
        make_patch(f"{plain.name}:build", problem_of(f"{plain.name}:build"), repair="bare")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x, y", "scaled((x, y))"),
        ("(x, y)", "scaled((x, y))"),
        ("(x), (y)", "scaled(((x), (y)))"),
        ("(x,\n y,\n)", "scaled((x,\n y,\n))"),
        ("(x(1), y(2))", "scaled((x(1), y(2)))"),
        ("x", "scaled(x)"),
    ],
)
def test_a_tuple_that_is_returned_becomes_one_argument(value: str, expected: str) -> None:
    change = Repair(name="standardized", summary="", imports=(), before="scaled(")
    edited = with_repair(f"def data():\n    return {value}\n", "data", change)
    assert edited == f"def data():\n    return {expected}\n"


def test_the_data_function_is_changed_to_standardized_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"{ONE_RETURN}\ndef data():\n    import torch\n    torch.manual_seed(0)\n"
    text += "    return 300 + 50 * torch.randn(60, 6), torch.arange(60) % 4\n"
    file = write_module(tmp_path, text)
    inputs = load_data(load_function(f"{file.name}:data")[0])
    problem = make_problem(load_function(f"{file.name}:build")[0], inputs)
    patch = make_patch(f"{file.name}:data", problem, folder=Path("out"), repair="standardized")
    write_patch(patch)
    apply(patch, tmp_path)
    renamed = file.rename(tmp_path / f"renamed_{file.name}")
    x, y = load_data(load_function(f"{renamed.name}:data")[0])
    assert torch.allclose(x.mean(0), torch.zeros(6), atol=1e-4)
    assert torch.allclose(x.std(0), torch.ones(6), atol=1e-4) and len(y) == 60
