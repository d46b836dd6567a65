"""Connections of a server: slow, greedy, broken and odd clients."""

import contextlib
import io
import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from reslearn.deploy.server_app import ModelServer

sys.path.insert(0, str(Path(__file__).parent))
from served import LIMITS, PART, picture, raw, wait_until


def test_a_client_that_does_not_read_is_cut_off(address: str, client: httpx.Client) -> None:
    parts = urlsplit(address)
    num_sent, num_bytes = 0, 0
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((parts.hostname, parts.port))
        connection.settimeout(10)
        with contextlib.suppress(OSError):  # the server does not take all of them
            for _ in range(60):
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 16)
                num_sent += 16
                time.sleep(0.01)
        time.sleep(2 * LIMITS.read_seconds)
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(2**16):
                num_bytes += len(chunk)
    assert num_bytes < num_sent * len(client.get("/").content)


def test_requests_that_wait_behind_one_another_are_limited(address: str) -> None:
    """Thirty-two wait behind the first. Each would take far more memory than its bytes."""
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    last = head.replace(b"Host", b"Connection: close\r\nHost")
    assert raw(address, head * 32 + last).count(b"HTTP/1.1 200") == 33
    answer = raw(address, head * 33 + last)
    assert answer.count(b"HTTP/1.1 400") == 1
    assert b"HTTP/1.1 200" not in answer


@pytest.mark.parametrize(
    "start",
    [
        b"GET /" + b"x" * 100_000,
        b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000,
        b"\r\n" * 60_000,
        b"POST /v1/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 100_000,
        b"POST /v1/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx: " + b"y" * 100_000,
    ],
    ids=["path", "header", "headers", "empty lines", "extension of a chunk", "trailer"],
)
def test_a_head_without_end_gets_400(address: str, start: bytes) -> None:
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        answer = b""
        with contextlib.suppress(ConnectionError):
            for offset in range(0, len(start), 10_000):  # more than one packet
                connection.sendall(start[offset : offset + 10_000])
                time.sleep(0.002)
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(2**16):
                answer += chunk
    assert not answer or answer.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "line", [b"OPTIONS *", b"CONNECT x:1", b"GET /\xff", b"GET http://x/healthz", b"GET //"]
)
def test_odd_targets_are_no_error_of_the_server(address: str, line: bytes) -> None:
    answer = raw(address, line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer[:10] in (b"HTTP/1.1 2", b"HTTP/1.1 4")


def test_an_address_that_is_too_long_is_called_so(address: str) -> None:
    answer = raw(address, b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"too long" in answer


def test_an_upgrade_is_ignored(address: str) -> None:
    """curl --http2 and Java ask for one. The body and the next request are read."""
    body = PART + picture(1) + b"\r\n--b--\r\n"
    head = (
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = raw(address, head + body + last)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert raw(address, last.replace(b"close", b"close, Upgrade\r\nUpgrade: x")).count(b"200") == 1


def test_a_malformed_chunk_in_mid_upload_gets_400(address: str) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(address, head + b"zz\r\nxx\r\n").startswith(b"HTTP/1.1 400")
    both = head.replace(b"Host: x", b"Host: x\r\nContent-Length: 5")
    assert raw(address, both + b"0\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_slow_clients_are_cut_off(address: str, model_server: ModelServer) -> None:
    start = time.perf_counter()
    heads = [
        b"",
        b"POST /v1/predict HT",
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n{",
    ]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda head: raw(address, head), heads))
    assert time.perf_counter() - start < 8
    assert answers[:2] == [b"", b""]
    assert answers[2].startswith(b"HTTP/1.1 408")
    assert model_server.admission.bytes == 0


def test_many_slow_clients_do_not_keep_others_out(address: str, client: httpx.Client) -> None:
    parts = urlsplit(address)
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
    with contextlib.ExitStack() as stack:
        for number in range(200):
            connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
            stack.enter_context(connection)
            connection.sendall((b"", head, head + b"\r\nx")[number % 3])
        assert client.post("/v1/predict", files={"image": picture(1)}).status_code == 200


def test_what_is_not_http_gets_400(address: str) -> None:
    answer = raw(address, b"\x16\x03\x01 GARBAGE\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    body = answer.partition(b"\r\n\r\n")[2]
    assert "error" in json.loads(body)


def test_a_disconnect_in_mid_upload_frees_its_bytes(
    address: str, model_server: ModelServer, log: io.StringIO
) -> None:
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
        wait_until(lambda: model_server.admission.bytes == 1)
    wait_until(lambda: model_server.admission.bytes == 0)
    wait_until(lambda: json.loads(log.getvalue().splitlines()[-1])["status"] == 499)
