"""Weights from a URL are downloaded once, resumed, verified, or refused in one line.

The tests use the real commands and a local server.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from reslearn import models
from reslearn.data import DataError
from reslearn.interop import WeightsError, dialect_named, identify, load_network, write_weights
from reslearn.runs import RunFolder

sys.path.insert(0, str(Path(__file__).parents[1]))
from one_file_server import Site

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    """Serve resnet8 in dialect cifar-fc under any path. Downloads go below tmp_path/cache."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("RESLEARN_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr("reslearn.data.fetch.time.sleep", lambda seconds: None)
    write_weights(
        models.build("resnet8", num_classes=5, shortcut="B"),
        tmp_path / "served.pth",
        dialect_named("cifar-fc"),
    )
    site = Site((tmp_path / "served.pth").read_bytes())
    yield site
    site.close()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def downloaded(tmp_path: Path) -> list[str]:
    """Return the names of the files in the cache, whose folder exists only if it holds some."""
    return sorted(
        path.name for path in (tmp_path / "cache" / "weights").glob("*") if path.name != ".lock"
    )


@pytest.mark.filterwarnings("default")  # warnings about the switches of the weights
def test_training_from_a_url_whose_download_breaks_three_times(
    site: Site, reslearn: Run, tmp_path: Path
) -> None:
    site.cuts, site.cut_after = 3, len(site.body) // 5
    address = f"{site.address}model.pth#sha256={sha256(site.body)}"
    flags = [
        "--set",
        "schedule.kind=constant",
        "--set",
        "schedule.duration=1 steps",
        "--set",
        "data.train_images=40",
        "-b",
        "10",
    ]
    flags += ["--set", "evaluation.recompute_images=0", "--threads", "1"]
    status, _, errors = reslearn(
        "train", "digits", *flags, "--init", address, "--out", str(tmp_path / "run"), "--json"
    )
    assert status == 0, errors
    assert site.requested == [None, *(f"bytes={part * site.cut_after}-" for part in (1, 2, 3))]
    started = RunFolder.open(tmp_path / "run").environment["init"]
    assert (started["source"], started["sha256"]) == (address, sha256(site.body))
    assert downloaded(tmp_path) == [f"model-{sha256(site.body)[:8]}.pth"]
    site.close()  # from here on there is no network
    status, output, errors = reslearn("inspect", address)
    assert status == 0 and "dialect cifar-fc" in output, errors
    assert len(site.requested) == 4


def test_a_failed_download_is_resumed_by_the_next_command(
    site: Site, reslearn: Run, tmp_path: Path
) -> None:
    site.cuts, site.cut_after = 100, 0
    # The digest is in the name, as torchvision and timm publish it.
    address = f"{site.address}resnet8-{sha256(site.body)[:8]}.pth"
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    part = tmp_path / "cache" / "weights" / f"{address.rsplit('/', 1)[1]}.part"
    part.write_bytes(site.body[:1000])
    assert reslearn("inspect", address)[0] == 2
    assert part.read_bytes() == site.body[:1000], "a failed attempt keeps the part"
    site.cuts = 0
    assert reslearn("inspect", address)[0] == 0
    assert site.requested[-1] == "bytes=1000-" and downloaded(tmp_path) == [part.stem]


def test_a_wrong_digest_raises_one_line_and_leaves_no_file(
    site: Site, reslearn: Run, tmp_path: Path
) -> None:
    status, output, errors = reslearn("inspect", f"{site.address}model.pth#sha256={'0' * 64}")
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert f"sha256 {sha256(site.body)}, published {'0' * 64}" in errors
    assert downloaded(tmp_path) == []


def test_offline_error_names_the_url_and_the_local_file(
    site: Site, reslearn: Run, tmp_path: Path
) -> None:
    site.close()
    address, digest = f"{site.address}some/model.pth", "ab" * 32
    status, output, errors = reslearn(
        "train", "digits", "--init", f"{address}#sha256={digest}", "--out", str(tmp_path / "run")
    )
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert (
        f"cannot download {address} " in errors
        and f"save it as {tmp_path}/cache/weights/model-abababab.pth" in errors
    )
    assert not (tmp_path / "run").exists() and downloaded(tmp_path) == []


def test_files_of_the_same_name_from_two_urls_have_different_local_names(
    site: Site, tmp_path: Path
) -> None:
    first = load_network(f"{site.address}one/model.pth#sha256={sha256(site.body).upper()}")
    write_weights(
        models.build("resnet8", num_classes=7, shortcut="B"),
        tmp_path / "other.pth",
        dialect_named("cifar-fc"),
    )
    site.body = (tmp_path / "other.pth").read_bytes()
    second = load_network(f"{site.address}two/model.pth?download=true#sha256={sha256(site.body)}")
    assert (first.num_classes, second.num_classes, len(downloaded(tmp_path))) == (5, 7, 2)
    assert torch.equal(
        load_network(tmp_path / "other.pth").state_dict()["head.fc.weight"],
        second.state_dict()["head.fc.weight"],
    )


def test_a_modified_download_is_refused_and_stays(site: Site, tmp_path: Path) -> None:
    address = f"{site.address}model.pth#sha256={sha256(site.body)}"
    identify(address)
    path = tmp_path / "cache" / "weights" / downloaded(tmp_path)[0]
    path.write_bytes(b"changed")
    with pytest.raises(DataError, match="is not the published archive"):
        identify(address)
    assert path.read_bytes() == b"changed"


@pytest.mark.parametrize(
    "end",
    [
        "model.pth",
        "model.pth#sha256=",
        "model.pth#sha256=12ab",
        "resnet8-12345678.pth#sha256=12ab",
        "",
    ],
)
def test_a_url_without_a_complete_digest_is_refused_before_any_request(
    end: str, site: Site
) -> None:
    with pytest.raises(WeightsError, match="add the digest that the file must have") as raised:
        identify(site.address + end)
    assert "\n" not in str(raised.value) and site.requested == []
