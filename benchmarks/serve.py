"""The speed of `reslearn serve` under 64 clients, and what HTTP costs.

Four servers take turns, each in a process of its own, with the same network and pictures:

- batched: `reslearn serve`, which computes together what waits;
- one by one: `reslearn serve --batch-size 1`;
- plain, same engine: the plainest FastAPI server (plain_server.py), with the library that
  `reslearn serve` chose, used by hand with its default settings;
- plain: the same with eager PyTorch.

The clients are another process on the same cores (load_generator.py), whose processor time is
reported beside. Two turns measure the engine without HTTP, in this process:

- encoded pictures: `Predictor` on the same files, in batches of 16, as `reslearn predict` does it;
- decoded pictures: the computation alone, on pixels that are ready.

The share of the engine that survives HTTP is measured on encoded pictures, since a server decodes
them too. It is measured twice, without the clients:

- by processor time: the time of a picture in the engine, divided by the time of a request in the
  server;
- by throughput: pictures per second of the server, divided by the part of the engine's pictures
  per second that the processor time of the clients leaves over.

The share of the engine on decoded pictures is reported beside. It also contains the decoder.
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
from reslearn.deploy.predictor import DEFAULT_BATCH_SIZE
from reslearn.deploy.server_models import open_served
from reslearn.progress import print_progress
from reslearn.study import die_with_parent
from reslearn.train.numerics import processor_name

_SECONDS_PER_TURN = 5.0
_START_SECONDS = 180.0
_BATCHED, _ONE_BY_ONE = "batched", "one by one"
_PLAIN_ENGINE, _PLAIN = "plain, same engine", "plain"
_ENCODED, _DECODED = "engine, encoded pictures", "engine, decoded pictures"


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
        times_plain, times_plain_engine, times_one_by_one: Pictures per second in units of the three
            servers without batches, medians of the rounds.
        cpu_share_pct, throughput_share_pct: What HTTP keeps of the speed of the engine on encoded
            pictures, by processor time and by throughput.
        decoded_cpu_share_pct, decoded_throughput_share_pct: The same of its speed on decoded
            pictures.
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
    times_plain_engine: float
    times_one_by_one: float
    cpu_share_pct: float
    throughput_share_pct: float
    decoded_cpu_share_pct: float
    decoded_throughput_share_pct: float
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
    files = [path.read_bytes() for path in pictures]
    contents = [files[index % len(files)] for index in range(16 * DEFAULT_BATCH_SIZE)]
    pixels = [predictor.pixels(content) for content in contents[:DEFAULT_BATCH_SIZE]]
    turns: dict[str, list[_Turn]] = {}
    with ExitStack() as stack:
        takes: dict[str, Callable[[], _Turn]] = {}
        for name, command in _commands(model, threads, runtime).items():
            process, port = stack.enter_context(_started(command))
            takes[name] = _server_turn(process, port, pictures, clients, seconds)
        takes[_ENCODED] = lambda: _engine_turn(predictor, contents, seconds)
        takes[_DECODED] = lambda: _engine_turn(predictor.predict_pixels, pixels, seconds)
        for number in range(1 + rounds):
            print_progress(f"round {number} of {rounds}" if number else "warm-up")
            for name, take in takes.items():
                turn = take()
                if number:
                    turns.setdefault(name, []).append(turn)
    rows = []
    for name in turns:
        library = "torch" if name == _PLAIN else runtime
        rows.append(_row(name, turns, library, clients=clients, threads=threads))
    return rows


def _commands(model: str, threads: int, runtime: str) -> dict[str, list[str]]:
    """Return the command of each server. PORT stands for its port."""
    serve = ["reslearn", "serve", model, "--port", "PORT", "--no-access-log"]
    serve += ["--threads", str(threads)]
    plain = ["benchmarks.plain_server", model, "PORT", str(threads)]
    return {
        _BATCHED: serve,
        _ONE_BY_ONE: [*serve, "--batch-size", "1"],
        _PLAIN_ENGINE: [*plain, runtime],
        _PLAIN: [*plain, "torch"],
    }


@contextmanager
def _started(command: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start a server on a free port, and wait until it answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    words = [str(port) if word == "PORT" else word for word in command]
    # A benchmark that is killed cannot stop its servers: they would keep the cores busy, unseen.
    end_with_us = [sys.executable, "-I", die_with_parent.__file__, str(os.getpid())]
    process = subprocess.Popen(
        [*end_with_us, sys.executable, "-m", *words],
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


def _engine_turn(
    compute: Callable[[Sequence[Any]], object], pictures: Sequence[Any], seconds: float
) -> _Turn:
    """Compute pictures in this process again and again: files, or pixels that are ready."""
    compute(pictures)
    num_pictures = 0
    start, cpu_start = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        compute(pictures)
        num_pictures += len(pictures)
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
        times_plain=_rate_ratio(own, turns[_PLAIN]),
        times_plain_engine=_rate_ratio(own, turns[_PLAIN_ENGINE]),
        times_one_by_one=_rate_ratio(own, turns[_ONE_BY_ONE]),
        cpu_share_pct=_cpu_share_pct(own, turns[_ENCODED]),
        throughput_share_pct=_throughput_share_pct(own, turns[_ENCODED]),
        decoded_cpu_share_pct=_cpu_share_pct(own, turns[_DECODED]),
        decoded_throughput_share_pct=_throughput_share_pct(own, turns[_DECODED]),
        threads=threads,
        processor=processor_name(),
    )


def _rate_ratio(own: Sequence[_Turn], others: Sequence[_Turn]) -> float:
    return median_ratio([turn.rate for turn in own], [turn.rate for turn in others])


def _cpu_share_pct(own: Sequence[_Turn], engine: Sequence[_Turn]) -> float:
    """Return the processor time of the engine divided by the processor time of the server."""
    server_times = [turn.cpu_milliseconds for turn in own]
    return 100 * median_ratio([turn.cpu_milliseconds for turn in engine], server_times)


def _throughput_share_pct(own: Sequence[_Turn], engine: Sequence[_Turn]) -> float:
    """Return the rate of the server divided by the rate of the engine beside the same clients."""
    rates = [turn.rate / (1 - turn.client_share) for turn in own]
    return 100 * median_ratio(rates, [turn.rate for turn in engine])


def table(rows: Sequence[ServeRow]) -> str:
    """Return the rows as text: a line each for the speed and for the share of the engine."""
    lines = []
    for row in rows:
        latency = ""
        if row.p50_ms is not None and row.p99_ms is not None:
            latency = (
                f", p50 {row.p50_ms:6.1f} ms, p99 {row.p99_ms:6.1f} ms, clients take "
                f"{row.client_cpu_pct:.0f} % of the processor, {row.errors} errors"
            )
        lines.append(
            f"{row.server:24} {row.runtime:11} {row.pictures_per_second:7,.0f} pictures/s, "
            f"{row.cpu_milliseconds:6.2f} ms of CPU per picture{latency}"
        )
    lines.append("")
    for row in rows:
        lines.append(
            f"{row.server:24} {row.times_plain:6.2f} times plain, {row.times_plain_engine:5.2f} "
            f"times plain with the same engine, {row.times_one_by_one:5.2f} times one by one; of "
            f"the engine on encoded pictures {row.cpu_share_pct:4.0f} % by CPU, "
            f"{row.throughput_share_pct:4.0f} % by throughput; on decoded pictures "
            f"{row.decoded_cpu_share_pct:4.0f} % and {row.decoded_throughput_share_pct:4.0f} %"
        )
    return "\n".join(lines)
