"""Sources of pictures: files, folders, globs, addresses and standard input."""

import io
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from reslearn.data import DataError
from reslearn.deploy.sources import PictureSource, Source, UnreadableSource, download, expand

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


def names(*texts: object, stdin: bytes | None = None) -> list[str]:
    stream = None if stdin is None else io.BytesIO(stdin)
    return [source.name for source in expand(map(str, texts), stream)]


def reason(*texts: object, stdin: bytes | None = None) -> str:
    stream = None if stdin is None else io.BytesIO(stdin)
    (source,) = expand(map(str, texts), stream)
    assert isinstance(source, UnreadableSource)
    return source.reason


def only(text: str, stdin: bytes | None = None) -> Source:
    (source,) = expand([text], None if stdin is None else io.BytesIO(stdin))
    return source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.jpg", "sub/c.webp", "notes.txt", "sub/.hidden.png", "[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PNG)
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_files_folders_and_globs(folder: Path) -> None:
    assert names(folder / "notes.txt", folder / "missing") == [
        str(folder / "notes.txt"),
        str(folder / "missing"),
    ], "reading decides whether a named file is a picture"
    expected = [str(folder / name) for name in ("[1].png", "a.jpg", "b.png", "sub/c.webp")]
    assert names(folder) == expected
    assert names(folder / "*.jpg", folder / "**" / "*.webp") == [expected[1], expected[3]]
    assert names(folder / "[1].png") == expected[:1], "an existing file is no pattern"
    assert names(folder / "su*") == [expected[3]]
    assert reason(folder / "*.gif") == "no file matches"
    assert reason(folder / "empty") == "the folder holds no pictures"
    assert reason(folder / "missing") == "there is no such file"
    os.mkfifo(folder / "pipe")
    assert reason(folder / "pipe") == "it is not a regular file"  # reading it would wait


def test_only_http_addresses_are_allowed() -> None:
    assert names("https://host/a.png", "HTTP://host/b.png") == [
        "https://host/a.png",
        "HTTP://host/b.png",
    ]
    for address in ("file:///etc/passwd", "ftp://host/a.png", "gopher://host"):
        assert "is not allowed: use http or https" in reason(address)


def test_standard_input_is_a_picture_or_names(folder: Path) -> None:
    picture = only("-", PNG + b"rest")
    assert isinstance(picture, PictureSource)
    assert (picture.name, picture.content()) == ("-", PNG + b"rest")
    listing = f"{folder / 'a.jpg'}\r\n\n{folder / 'sub'}\nhttps://host/grün.png".encode()
    expected = [str(folder / "a.jpg"), str(folder / "sub" / "c.webp"), "https://host/grün.png"]
    assert names("-", stdin=listing) == expected
    long_listing = "ü.png\n".encode() * 3000  # a letter is cut where the peeked bytes end
    assert len(names("-", stdin=b"x" + long_listing)) == 3000
    assert reason("-", stdin=b"") == "standard input is empty"


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
        elif self.path == "/missing":
            self.send_error(404)
        else:
            self.send_response(200)
            self.end_headers()
            self._send(int(self.path.rpartition("/")[2]), slowly="slow" in self.path)

    def _send(self, size: int, *, slowly: bool) -> None:
        try:
            for _ in range(size if slowly else 1):
                self.wfile.write(b"x" * (1 if slowly else size))
                self.wfile.flush()
                if slowly:
                    time.sleep(0.02)
        except OSError:
            pass  # the reader has left

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_download(address: str, tmp_path: Path) -> None:
    source = only(f"{address}/size/1000")
    assert isinstance(source, PictureSource)
    assert source.content() == b"x" * 1000
    assert download(f"{address}/to/{address}/size/5") == b"x" * 5
    assert len(download(f"{address}/size/5000", max_bytes=5000)) == 5000
    secret = tmp_path / "secret"
    secret.write_text("secret")
    for path, message in (
        ("/missing", "the server answered 404"),
        (f"/to/file://{secret}", r"redirection to url .* is not allowed|302"),
        ("/to/ftp://127.0.0.1/a", "unknown url type: ftp"),
        ("/size/5001", "more than 0 MiB"),
        ("/slow/500", "not downloaded within 0 seconds"),
    ):
        with pytest.raises(DataError, match=message) as error:
            download(address + path, max_bytes=5000, timeout_seconds=0.3)
        assert "secret" not in str(error.value).replace(str(secret), "")
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="Connection refused"):
        download("http://127.0.0.1:9/a.png")
