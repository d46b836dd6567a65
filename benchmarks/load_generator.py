"""Clients that send one picture after another to a model server, as fast as it answers.

The clients are connections of one process, without a library for HTTP and with the event loop of
uvloop where it is installed, so that they take little processor time from the server.
benchmarks/serve.py starts the process:

    python -m benchmarks.load_generator 127.0.0.1 8000 --clients 64 --seconds 5 photo.jpg ...

It prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

_BOUNDARY = "reslearn-benchmark"
_PATH = "/v1/predict"
_PAUSE_SECONDS = 0.01


@dataclass(kw_only=True)
class Answers:
    """What all clients received.

    Attributes:
        seconds: Time of each answer with status 200.
        statuses: Number of answers by status; 0 for a connection without an answer.
    """

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)


class Client(asyncio.Protocol):
    """One connection. It sends the next request when the answer of the last one is complete.

    Args:
        requests: The bytes of whole requests, sent in turns.
        first: The number of the first one.
        end: The moment of time.perf_counter() after which no request is sent.
        answers: Where answers are counted.
    """

    def __init__(self, requests: Sequence[bytes], first: int, end: float, answers: Answers) -> None:
        self.is_closed = asyncio.Event()
        self._requests = requests
        self._number = first
        self._end = end
        self._answers = answers
        self._received = b""
        self._sent_at: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop has another base
        self._send()

    def data_received(self, data: bytes) -> None:
        """Collect the answer."""
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator or len(body) < _content_length(head) or self._sent_at is None:
            return
        status = int(head.split(maxsplit=2)[1])
        self._answers.statuses[status] += 1
        if status == 200:
            self._answers.seconds.append(time.perf_counter() - self._sent_at)
        self._received, self._sent_at = b"", None
        if b"connection: close" in head.lower():
            self._transport.close()
        else:
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        """Count a request that gets no answer."""
        if self._sent_at is not None:
            self._answers.statuses[0] += 1
        self.is_closed.set()

    def _send(self) -> None:
        now = time.perf_counter()
        if now > self._end:
            self._transport.close()
            return
        self._sent_at = now
        self._transport.write(self._requests[self._number % len(self._requests)])
        self._number += 1


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def request_bytes(content: bytes, address: str) -> bytes:
    """Return a request that uploads one file as a form."""
    head = (
        f"--{_BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="image"; filename="photo.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()
    lines = (
        f"POST {_PATH} HTTP/1.1",
        f"Host: {address}",
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join([*lines, "", ""]).encode() + body


async def load(
    host: str, port: int, contents: Sequence[bytes], *, clients: int, seconds: float
) -> dict[str, Any]:
    """Send requests for some seconds, and return how they were answered."""
    loop = asyncio.get_running_loop()
    requests = [request_bytes(content, f"{host}:{port}") for content in contents]
    answers = Answers()
    start, cpu_start = time.perf_counter(), time.process_time()
    end = start + seconds

    async def keep_connected(number: int) -> None:
        """Connect, and connect again when the server closes the connection."""
        while time.perf_counter() < end:
            try:
                _, client = await loop.create_connection(
                    lambda: Client(requests, number, end, answers), host, port
                )
            except OSError:
                answers.statuses[0] += 1
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            await client.is_closed.wait()

    await asyncio.gather(*(keep_connected(number) for number in range(clients)))
    elapsed = time.perf_counter() - start
    ordered = sorted(answers.seconds)
    return {
        "requests": len(ordered),
        "seconds": elapsed,
        "statuses": dict(answers.statuses),
        "p50_ms": 1000 * ordered[len(ordered) // 2] if ordered else None,
        "p99_ms": 1000 * ordered[int(0.99 * len(ordered))] if ordered else None,
        "cpu_seconds": time.process_time() - cpu_start,
    }


def run_load(host: str, port: int, contents: Sequence[bytes], **options: Any) -> dict[str, Any]:
    """Run `load` with the event loop of uvloop where it is installed."""
    has_uvloop = importlib.util.find_spec("uvloop") is not None
    loop_factory = importlib.import_module("uvloop").new_event_loop if has_uvloop else None
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(load(host, port, contents, **options))


def main() -> None:
    """Run the clients of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    contents = [path.read_bytes() for path in arguments.pictures]
    result = run_load(
        arguments.host,
        arguments.port,
        contents,
        clients=arguments.clients,
        seconds=arguments.seconds,
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
