"""`reslearn download` and `reslearn list data`, with a local server for the published one."""

import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from reslearn.data import sources
from reslearn.data.cifar import CIFAR10, load_cifar

sys.path.insert(0, str(Path(__file__).parents[1]))
from one_file_server import Site

Run = Callable[..., tuple[int, str, str]]
LAYOUT = CIFAR10.layouts[1]
FOLDER = LAYOUT.folder
NUM_BYTES = 6 * 20 * 3073 + 19  # six files of 20 records, and the names of ten classes


def archive() -> bytes:
    files = {name: bytes([3] * 3073) * 20 for name in (*LAYOUT.train, LAYOUT.test)}
    files[LAYOUT.classes] = "\n".join("abcdefghij").encode()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, body in files.items():
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return stream.getvalue()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    """Serve a small CIFAR-10, and search for data sets in an empty folder only."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    site = Site(archive())
    md5 = hashlib.md5(site.body, usedforsecurity=False).hexdigest()
    cifar = replace(CIFAR10, layouts=(replace(LAYOUT, site=site.address, md5=md5),))
    source = replace(sources.SOURCES["cifar10"], archives=cifar, load=partial(load_cifar, cifar))
    monkeypatch.setitem(sources.SOURCES, "cifar10", source)
    yield site
    site.close()


def listed(reslearn: Run, *options: object) -> dict[str, str]:
    status, output, errors = reslearn("list", "data", *options)
    assert (status, errors) == (0, "")
    return dict(line.split("  ", 1) for line in output.splitlines())


def test_a_download_is_verified_unpacked_listed_and_not_repeated(
    site: Site, reslearn: Run, tmp_path: Path
) -> None:
    advice = "not present, 170 MB to download with: reslearn download cifar10"
    assert listed(reslearn)["cifar10"].endswith(advice)
    folder = tmp_path / "home" / ".cache" / "reslearn" / "data" / FOLDER
    assert reslearn("download", "cifar10") == (
        0,
        f"cifar10: downloaded to {folder} ({NUM_BYTES / 1e3:.1f} kB)\n",
        "",
    )
    assert listed(reslearn)["cifar10"].endswith(f"in {folder} ({NUM_BYTES / 1e3:.1f} kB)")
    status, output, _ = reslearn("download", "cifar10", "--json")
    assert (status, len(site.requested)) == (0, 1)
    assert json.loads(output) == [
        {
            "name": "cifar10",
            "state": "present",
            "folder": str(folder),
            "num_bytes": NUM_BYTES,
            "was_downloaded": False,
        }
    ]


def test_an_interrupted_download_is_resumed_in_the_given_folder(
    site: Site, reslearn: Run, tmp_path: Path
) -> None:
    part = tmp_path / "sets" / f"{LAYOUT.archive}.part"
    part.parent.mkdir()
    part.write_bytes(site.body[:500])
    status, output, _ = reslearn("download", "cifar10", "--data-dir", part.parent)
    assert (status, site.requested) == (0, ["bytes=500-"])
    assert f"downloaded to {part.parent / FOLDER}" in output
    assert not (tmp_path / "home").exists()
    assert listed(reslearn, "--data-dir", part.parent)["cifar10"].count(str(part.parent)) == 1


def test_the_digits_need_no_download_and_all_names_every_set(site: Site, reslearn: Run) -> None:
    assert reslearn("download", "digits") == (
        0,
        "digits: embedded, so there is nothing to download\n",
        "",
    )
    status, output, errors = reslearn("download", "cifar-10")
    assert (status, output) == (2, "")
    assert "no data set called 'cifar-10', did you mean 'cifar10'?" in errors
    assert listed(reslearn)["digits"].endswith("embedded")


def test_a_failed_download_is_one_line_and_leaves_no_folder(
    site: Site, reslearn: Run, tmp_path: Path
) -> None:
    site.refusal = 404
    folder = tmp_path / "new" / "folder"
    status, output, errors = reslearn("download", "cifar10", "--data-dir", folder)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert f"cannot download {site.address}{LAYOUT.archive} (404 Not Found)" in errors
    assert "the embedded digits need no download" in errors
    assert not (tmp_path / "new").exists()


def test_an_incomplete_set_is_called_so(site: Site, reslearn: Run, tmp_path: Path) -> None:
    reslearn("download", "cifar10", "--data-dir", tmp_path)
    (tmp_path / FOLDER / LAYOUT.test).unlink()
    assert "; incomplete in " in listed(reslearn, "--data-dir", tmp_path)["cifar10"]
    status, _, errors = reslearn("download", "cifar10", "--data-dir", tmp_path)
    assert status == 2
    assert f"{tmp_path / FOLDER} lacks {LAYOUT.test}" in errors
    assert f"run: reslearn download cifar10 --data-dir {tmp_path}" in errors


@pytest.mark.parametrize(
    "command",
    [
        ("train", "cifar10"),
        ("train", "cifar10", "--dry-run"),
        ("study", "--models", "resnet8", "--data", "cifar10"),
        ("paper", "fig1"),
        ("paper", "claims"),
        ("diagnose", "NET:build", "--data", "cifar10"),
    ],
    ids=lambda command: " ".join(command),
)
def test_every_command_offers_the_download_and_the_digits_for_missing_data(
    command: tuple[str, ...],
    site: Site,
    reslearn: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    network = tmp_path / "net.py"
    network.write_text("def build():\n    raise AssertionError('the data come first')\n")
    arguments = [word.replace("NET", str(network)) for word in command]
    status, output, errors = reslearn(*arguments)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert "download it with: reslearn download cifar10, or put " in errors
    assert (
        "the embedded digits need no download: reslearn train digits, and --data digits" in errors
    )
    assert "--download --dry-run" not in errors
    assert [path for path in tmp_path.iterdir() if path.name != "__pycache__"] == [network]
