"""Downloads from a local server that cuts connections, ignores ranges or sends other content."""

import hashlib
import io
import os
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reslearn.data import DataError
from reslearn.data.cifar import CIFAR10, Cifar, load_cifar
from reslearn.data.fetch import fetch, unpack

sys.path.insert(0, str(Path(__file__).parents[1]))
from one_file_server import Site


def archive_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return stream.getvalue()


def md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def tiny_cifar() -> dict[str, bytes]:
    layout = CIFAR10.layouts[1]
    record = bytes([3]) + os.urandom(3072)
    files = {f"{layout.folder}/{name}": record * 20 for name in (*layout.train, layout.test)}
    return files | {f"{layout.folder}/{layout.classes}": "\n".join("abcdefghij").encode()}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site(archive_of(tiny_cifar()))
    yield site
    site.close()


def cifar_at(site: Site) -> Cifar:
    return replace(
        CIFAR10, layouts=(replace(CIFAR10.layouts[1], site=site.address, md5=md5(site.body)),)
    )


def test_a_download_resumes_where_the_connection_was_cut(site: Site, tmp_path: Path) -> None:
    site.cuts, site.cut_after = 3, len(site.body) // 5
    dataset = load_cifar(cifar_at(site), [tmp_path / "new" / "folder"], download=True, size_px=None)
    assert len(dataset.train) == 100
    assert site.requested == [None, *(f"bytes={part * site.cut_after}-" for part in (1, 2, 3))]
    second = load_cifar(cifar_at(site), [tmp_path / "new" / "folder"], download=True, size_px=None)
    assert second.fingerprint == dataset.fingerprint
    assert len(site.requested) == 4  # nothing is downloaded twice


def test_a_later_call_resumes_and_a_complete_part_is_recognized(site: Site, tmp_path: Path) -> None:
    archive = tmp_path / "archive.tar.gz"
    part = tmp_path / "archive.tar.gz.part"
    for have in (1000, len(site.body)):
        part.write_bytes(site.body[:have])
        fetch(site.address, archive, md5=md5(site.body), pause_seconds=0.0)
        assert archive.read_bytes() == site.body
        assert site.requested.pop() == f"bytes={have}-"
        assert not part.exists()


def test_a_server_without_ranges_sends_everything_again(site: Site, tmp_path: Path) -> None:
    site.ranges, site.cuts, site.cut_after = False, 1, 500
    fetch(site.address, tmp_path / "archive", md5=md5(site.body), pause_seconds=0.0)
    assert (tmp_path / "archive").read_bytes() == site.body


def test_a_wrong_md5_is_refused_and_the_file_removed(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"md5 [0-9a-f]{32}, published 000; it was removed"):
        fetch(site.address, tmp_path / "archive", md5="000")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_server_is_one_line_with_address_and_folder(site: Site, tmp_path: Path) -> None:
    site.cuts, site.cut_after = 100, 0
    with pytest.raises(
        DataError,
        match=f"cannot download {site.address} .*save it as {tmp_path / 'archive'}",
    ):
        fetch(site.address, tmp_path / "archive", md5=md5(site.body), pause_seconds=0.0)
    site.close()
    with pytest.raises(DataError, match=r"cannot download .*refused"):
        fetch(site.address, tmp_path / "archive", md5=md5(site.body), pause_seconds=0.0)


def test_a_permanent_refusal_is_not_repeated(site: Site, tmp_path: Path) -> None:
    site.refusal = 404
    with pytest.raises(DataError, match=f"cannot download {site.address} .404 Not Found."):
        fetch(site.address, tmp_path / "archive", pause_seconds=0.0)
    assert len(site.requested) == 1


def test_an_existing_archive_is_verified_and_unpacked(site: Site, tmp_path: Path) -> None:
    cifar = cifar_at(site)
    archive = tmp_path / cifar.layouts[0].archive
    archive.write_bytes(site.body[:-9])
    with pytest.raises(DataError, match="is not the published archive"):
        load_cifar(cifar, [tmp_path], download=False, size_px=None)
    assert archive.exists()  # the user's own file is not removed
    archive.write_bytes(site.body)
    assert len(load_cifar(cifar, [tmp_path], download=False, size_px=None).test) == 20
    assert site.requested == []


def test_many_processes_download_once(site: Site, tmp_path: Path) -> None:
    cifar = cifar_at(site)
    fingerprints: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: fingerprints.append(
                load_cifar(cifar, [tmp_path], download=True, size_px=None).fingerprint
            )
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(fingerprints)) == 1
    assert len(fingerprints) == 4
    assert len(site.requested) == 1


@pytest.mark.parametrize("name", ["../outside", "/tmp/reslearn-outside"])
def test_nothing_is_unpacked_outside(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "a.tar.gz").write_bytes(archive_of({"folder/good": b"1", name: b"2"}))
    if name.startswith("/"):
        # An absolute name is made relative, so it lands in the temporary folder.
        unpack(inside / "a.tar.gz", "folder")
        assert not Path(name).exists()
    else:
        with pytest.raises(DataError, match="cannot be unpacked"):
            unpack(inside / "a.tar.gz", "folder")
        assert not (tmp_path / "outside").exists()
        assert not (inside / "outside").exists()


@pytest.mark.parametrize(
    "body",
    [b"", b"no archive", archive_of(tiny_cifar())[:-3000]],
    ids=["empty", "foreign", "truncated"],
)
def test_broken_archives_leave_no_folder(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "a.tar.gz").write_bytes(body)
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(tmp_path / "a.tar.gz", "cifar-10-batches-bin")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar.gz"]
