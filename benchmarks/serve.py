"""The speed of `reslearn serve` under 64 clients, and what HTTP costs.

Three servers take turns, each in a process of its own, with the same network and pictures:

- batched: `reslearn serve`, which computes together what waits;
- one by one: `reslearn serve --batch-size 1`;
- plain: the plainest FastAPI server with eager PyTorch (plain_server.py).

The clients are another process on the same cores (load_generator.py), whose processor time is
reported beside. `Predictor` computes the same pictures in this process, in batches of 16: it is the
speed of the engine without HTTP. What HTTP keeps of it is measured twice, without the clients:

- by processor time: the time of a picture in `Predictor`, divided by the time of a request in the
  server;
- by throughput: pictures per second of the server, divided by the part of `Predictor`'s pictures
  per second that the processor time of the clients leaves over.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from benchmarks.measuring import median_ratio, process_seconds

from reslearn.deploy.engine_choice import ServeEngine
from reslearn.deploy.predictor import DEFAULT_BATCH_SIZE, Predictor
from reslearn.deploy.server_models import open_served
from reslearn.progress import print_progress
from reslearn.train.numerics import processor_name

_SECONDS_PER_TURN = 5.0
_START_SECONDS = 180.0
_ENGINE_NAME = "Predictor, without HTTP"


@dataclass(frozen=True, kw_only=True)
class ServeRow:
    """One server, or the engine without a server.

    Attributes:
        runtime: The library that computes.
        pictures_per_second: Median over the rounds.
        p50_ms, p99_ms: Median and 99th percentile of the time of a request; medians of the rounds.
        cpu_milliseconds: Processor time per picture of the server.
        client_cpu_pct: Part of all processor time that the clients took.
        errors: Requests without status 200, in all rounds.
        times_plain, times_one_by_one: Pictures per second in units of the two servers without
            batches, medians of the rounds.
        cpu_share_pct, throughput_share_pct: What HTTP keeps of the speed of the engine, by
            processor time and by throughput.
    """

    server: str
    runtime: str
    clients: int
    pictures_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    cpu_milliseconds: float
    client_cpu_pct: float
    errors: int
    times_plain: float
    times_one_by_one: float
    cpu_share_pct: float
    throughput_share_pct: float
    threads: int
    processor: str


@dataclass(frozen=True, kw_only=True)
class _Turn:
    pictures: int
    seconds: float
    cpu_seconds: float
    client_cpu_seconds: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    errors: int = 0

    @property
    def rate(self) -> float:
        return self.pictures / self.seconds

    @property
    def cpu_milliseconds(self) -> float:
        return 1000 * self.cpu_seconds / self.pictures

    @property
    def client_share(self) -> float:
        """The part of the processor time that the clients took."""
        return self.client_cpu_seconds / (self.client_cpu_seconds + self.cpu_seconds)


def measure(
    model: str,
    pictures: Sequence[Path],
    *,
    clients: int = 64,
    rounds: int = 5,
    threads: int | None = None,
    seconds: float = _SECONDS_PER_TURN,
) -> list[ServeRow]:
    """Time all servers with one model.

    Args:
        model: A run, a bundle, or a name such as "reslearn:resnet20".
        pictures: Files that the clients send in turns.
        clients: Connections.
        rounds: In each, every server is under load for `seconds`.
        threads: Threads of the engines. None: all cores.
    """
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    predictor, choice = open_served(
        model, engine=ServeEngine.AUTO, processor=processor_name(), threads=threads
    )
    if choice is not None:
        print_progress(choice.text())
    runtime = predictor.model.engine.runtime
    contents = [path.read_bytes() for path in pictures]
    turns: dict[str, list[_Turn]] = {}
    with ExitStack() as stack:
        takes: dict[str, Callable[[], _Turn]] = {}
        for name, command in _commands(model, threads).items():
            process, port = stack.enter_context(_started(command))
            takes[name] = _server_turn(process, port, pictures, clients, seconds)
        takes[_ENGINE_NAME] = lambda: _engine_turn(predictor, contents, seconds)
        for number in range(1 + rounds):
            print_progress(f"round {number} of {rounds}" if number else "warm-up")
            for name, take in takes.items():
                turn = take()
                if number:
                    turns.setdefault(name, []).append(turn)
    runtimes = {"batched": runtime, "one by one": runtime, "plain": "torch", _ENGINE_NAME: runtime}
    return [_row(name, turns, runtimes[name], clients=clients, threads=threads) for name in turns]


def _commands(model: str, threads: int) -> dict[str, list[str]]:
    """Return the command of each server. PORT stands for its port."""
    serve = ["reslearn", "serve", model, "--port", "PORT", "--no-access-log"]
    serve += ["--threads", str(threads)]
    return {
        "batched": serve,
        "one by one": [*serve, "--batch-size", "1"],
        "plain": ["benchmarks.plain_server", model, "PORT", str(threads)],
    }


@contextmanager
def _started(command: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start a server on a free port, and wait until it answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    words = [str(port) if word == "PORT" else word for word in command]
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        _wait_for(process, port)
        yield process, port
    finally:
        process.terminate()
        process.wait(60)


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    # Without the proxy of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            with opener.open(f"http://127.0.0.1:{port}/openapi.json", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"the server did not answer within {_START_SECONDS:g} seconds")


def _server_turn(
    process: subprocess.Popen[bytes],
    port: int,
    pictures: Sequence[Path],
    clients: int,
    seconds: float,
) -> Callable[[], _Turn]:
    def take() -> _Turn:
        before = process_seconds(process.pid)
        result = _load(port, pictures, clients, seconds)
        statuses: Mapping[str, int] = result["statuses"]
        return _Turn(
            pictures=result["requests"],
            seconds=result["seconds"],
            cpu_seconds=process_seconds(process.pid) - before,
            client_cpu_seconds=result["cpu_seconds"],
            p50_ms=result["p50_ms"],
            p99_ms=result["p99_ms"],
            errors=sum(count for status, count in statuses.items() if status != "200"),
        )

    return take


def _load(port: int, pictures: Sequence[Path], clients: int, seconds: float) -> dict[str, Any]:
    arguments = ["--clients", str(clients), "--seconds", str(seconds), *map(str, pictures)]
    output = subprocess.run(
        [sys.executable, "-m", "benchmarks.load_generator", "127.0.0.1", str(port), *arguments],
        check=True,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    ).stdout
    result: dict[str, Any] = json.loads(output)
    return result


def _engine_turn(predictor: Predictor, contents: Sequence[bytes], seconds: float) -> _Turn:
    batch = [contents[index % len(contents)] for index in range(16 * DEFAULT_BATCH_SIZE)]
    predictor(batch[:DEFAULT_BATCH_SIZE])
    num_pictures = 0
    start, cpu_start = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        predictor(batch)
        num_pictures += len(batch)
    return _Turn(
        pictures=num_pictures,
        seconds=time.perf_counter() - start,
        cpu_seconds=time.process_time() - cpu_start,
    )


def _row(
    name: str, turns: Mapping[str, Sequence[_Turn]], runtime: str, *, clients: int, threads: int
) -> ServeRow:
    own = turns[name]
    p50s = [turn.p50_ms for turn in own if turn.p50_ms is not None]
    p99s = [turn.p99_ms for turn in own if turn.p99_ms is not None]
    return ServeRow(
        server=name,
        runtime=runtime,
        clients=clients if p50s else 0,
        pictures_per_second=statistics.median(turn.rate for turn in own),
        p50_ms=statistics.median(p50s) if p50s else None,
        p99_ms=statistics.median(p99s) if p99s else None,
        cpu_milliseconds=statistics.median(turn.cpu_milliseconds for turn in own),
        client_cpu_pct=statistics.median(100 * turn.client_share for turn in own),
        errors=sum(turn.errors for turn in own),
        times_plain=_median_ratio(own, turns["plain"]),
        times_one_by_one=_median_ratio(own, turns["one by one"]),
        cpu_share_pct=100
        * median_ratio(
            [turn.cpu_milliseconds for turn in turns[_ENGINE_NAME]],
            [turn.cpu_milliseconds for turn in own],
        ),
        throughput_share_pct=100
        * median_ratio(
            [turn.rate / (1 - turn.client_share) for turn in own],
            [turn.rate for turn in turns[_ENGINE_NAME]],
        ),
        threads=threads,
        processor=processor_name(),
    )


def _median_ratio(own: Sequence[_Turn], others: Sequence[_Turn]) -> float:
    return median_ratio([turn.rate for turn in own], [turn.rate for turn in others])


def table(rows: Sequence[ServeRow]) -> str:
    """Return the rows as text, one line each."""
    lines = []
    for row in rows:
        latency = ""
        if row.p50_ms is not None and row.p99_ms is not None:
            latency = (
                f", p50 {row.p50_ms:6.1f} ms, p99 {row.p99_ms:6.1f} ms, clients take "
                f"{row.client_cpu_pct:.0f} % of the processor, {row.errors} errors"
            )
        lines.append(
            f"{row.server:23} {row.runtime:11} {row.pictures_per_second:7,.0f} pictures/s, "
            f"{row.times_plain:5.2f} times plain, {row.times_one_by_one:5.2f} times one by one, "
            f"{row.cpu_milliseconds:6.2f} ms of CPU per picture; of the engine "
            f"{row.cpu_share_pct:4.0f} % by CPU, {row.throughput_share_pct:4.0f} % by throughput"
            f"{latency}"
        )
    return "\n".join(lines)
