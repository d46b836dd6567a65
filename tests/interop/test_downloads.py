"""Weights from an address, by the real commands and a real local server: fetched once, resumed, verified, refused in one line."""

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
    """Serves resnet8 in the names of cifar-fc under any name; what is fetched is kept below tmp_path/kept."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("RESLEARN_DATA", str(tmp_path / "kept"))
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


def kept(tmp_path: Path) -> list[str]:
    return sorted(
        path.name for path in (tmp_path / "kept" / "weights").iterdir() if path.name != ".lock"
    )


@pytest.mark.filterwarnings("default")  # what comes along with the weights is told
def test_a_training_starts_from_an_address_that_was_cut_three_times(
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
    assert kept(tmp_path) == [f"model-{sha256(site.body)[:8]}.pth"]
    site.close()  # and now without network
    status, output, errors = reslearn("inspect", address)
    assert status == 0 and "dialect cifar-fc" in output, errors
    assert len(site.requested) == 4


def test_a_download_that_was_given_up_goes_on_at_the_next_command(
    site: Site, reslearn: Run, tmp_path: Path
) -> None:
    site.cuts, site.cut_after = 100, 0
    address = f"{site.address}resnet8-{sha256(site.body)[:8]}.pth"  # the digest in the name, as torchvision and timm publish it
    (tmp_path / "kept" / "weights").mkdir(parents=True)
    part = tmp_path / "kept" / "weights" / f"{address.rsplit('/', 1)[1]}.part"
    part.write_bytes(site.body[:1000])
    assert reslearn("inspect", address)[0] == 2
    assert part.read_bytes() == site.body[:1000], "what came stays"
    site.cuts = 0
    assert reslearn("inspect", address)[0] == 0
    assert site.requested[-1] == "bytes=1000-" and kept(tmp_path) == [part.stem]


def test_a_wrong_digest_is_one_line_and_no_file(site: Site, reslearn: Run, tmp_path: Path) -> None:
    status, output, errors = reslearn("inspect", f"{site.address}model.pth#sha256={'0' * 64}")
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert f"sha256 {sha256(site.body)}, published {'0' * 64}" in errors
    assert kept(tmp_path) == []


def test_offline_is_one_line_with_address_and_place(
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
        and f"save it as {tmp_path}/kept/weights/model-abababab.pth" in errors
    )
    assert not (tmp_path / "run").exists() and kept(tmp_path) == []


def test_files_of_one_name_from_two_addresses_are_kept_apart(site: Site, tmp_path: Path) -> None:
    first = load_network(f"{site.address}one/model.pth#sha256={sha256(site.body).upper()}")
    write_weights(
        models.build("resnet8", num_classes=7, shortcut="B"),
        tmp_path / "other.pth",
        dialect_named("cifar-fc"),
    )
    site.body = (tmp_path / "other.pth").read_bytes()
    second = load_network(f"{site.address}two/model.pth?download=true#sha256={sha256(site.body)}")
    assert (first.num_classes, second.num_classes, len(kept(tmp_path))) == (5, 7, 2)
    assert torch.equal(
        load_network(tmp_path / "other.pth").state_dict()["head.fc.weight"],
        second.state_dict()["head.fc.weight"],
    )


def test_a_file_that_was_changed_where_it_is_kept_is_refused_and_stays(
    site: Site, tmp_path: Path
) -> None:
    address = f"{site.address}model.pth#sha256={sha256(site.body)}"
    identify(address)
    path = tmp_path / "kept" / "weights" / kept(tmp_path)[0]
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
def test_an_address_without_a_whole_digest_is_refused_before_anything_is_sent(
    end: str, site: Site
) -> None:
    with pytest.raises(WeightsError, match="add the digest that the file must have") as raised:
        identify(site.address + end)
    assert "\n" not in str(raised.value) and site.requested == []
