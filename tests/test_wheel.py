"""The wheel holds every file of the package, including recipes and templates, and runs alone."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_the_package_and_the_license(wheel: Path) -> None:
    packed = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src" / "reslearn"
    files = {
        path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    expected = {f"reslearn/{path.relative_to(package).as_posix()}" for path in files}
    assert {name for name in packed if name.startswith("reslearn/")} == expected
    assert any(name.endswith("licenses/LICENSE") for name in packed)


def test_wheel_runs_outside_the_repository(wheel: Path, tmp_path: Path) -> None:
    """Use the libraries of this environment, but no file of the repository."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    code = (
        "import sys; sys.path.insert(0, 'installed'); import reslearn.cli;"
        "print(reslearn.__file__); reslearn.cli.main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "list", "recipes"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stderr == ""
    where, *recipes = result.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path)
    assert recipes
