"""The access log of the server, in JSON lines, and its metrics for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reslearn.deploy.server_limits import Admission

CLIENT_CLOSED = 499
"""Status in the log for a client that went away before its answer, as nginx writes it."""
_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"})
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
_LONGEST_PATH = 200
_FLUSH_SECONDS = 0.1


class ServerMetrics:
    """Counters of one server. Labels have few values, whatever clients send.

    Args:
        paths: The paths of the server; others are counted as "other".
        admission: Its counts are read when the metrics are.
    """

    def __init__(self, paths: frozenset[str], admission: Admission) -> None:
        self._paths = paths
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "reslearn_requests",
            "Requests by path, method and status.",
            ("path", "method", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "reslearn_request_seconds",
            "Seconds from the head of a request to the end of its answer.",
            ("path",),
            registry=self._registry,
        )
        self._batch_sizes = Histogram(
            "reslearn_batch_pictures",
            "Pictures that were computed at once.",
            ("model",),
            buckets=_BATCH_SIZES,
            registry=self._registry,
        )
        self._batch_seconds = Histogram(
            "reslearn_batch_seconds",
            "Seconds that the model computed.",
            ("model",),
            registry=self._registry,
        )
        for name, text, read in (
            (
                "reslearn_queued_pictures",
                "Accepted pictures without an answer.",
                lambda: admission.pictures,
            ),
            ("reslearn_body_bytes", "Bytes of bodies in memory.", lambda: admission.bytes),
        ):
            Gauge(name, text, registry=self._registry).set_function(read)

    def observe_batch(self, model: str, num_pictures: int, seconds: float) -> None:
        """Count one batch. Threads may call it."""
        self._batch_sizes.labels(model).observe(num_pictures)
        self._batch_seconds.labels(model).observe(seconds)

    def observe_request(self, path: str, method: str, status: int, seconds: float) -> None:
        """Count one request and the time of its answer."""
        path = path if path in self._paths else "other"
        method = method if method in _METHODS else "other"
        counter, histogram = self._request_series(path, method, status)
        counter.inc()
        histogram.observe(seconds)

    def _request_series(self, path: str, method: str, status: int) -> tuple[Counter, Histogram]:
        """Return the two series of a request. `labels` would take a lock and check each label."""
        key = (path, method, status)
        if key not in self._series:
            counter = self._requests.labels(path, method, str(status))
            self._series[key] = (counter, self._seconds.labels(path))
        return self._series[key]

    def text(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""
        return generate_latest(self._registry)


class AccessLog:
    """An ASGI middleware that writes one JSON line per request and counts it.

    JSON escapes all control characters, so a path cannot forge a line. Queries, tokens and bodies
    are not written. The lines of a tenth of a second are written together.

    Args:
        app: The app.
        metrics: Counts the requests.
        admission: If it is draining, answers close their connections.
        stream: Where lines go; None: nowhere.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: ServerMetrics,
        admission: Admission,
        stream: Callable[[], TextIO | None],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._admission = admission
        self._stream = stream
        self._lines: list[str] = []

    def flush(self) -> None:
        """Write the lines that wait."""
        stream, lines = self._stream(), self._lines
        self._lines = []
        if stream is None or not lines:
            return
        with contextlib.suppress(OSError, ValueError):  # a full disk, or a closed pipe
            stream.write("".join(lines))
            stream.flush()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the app, then count it and write its line."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = CLIENT_CLOSED

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = self._headers(list(message["headers"]))
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            seconds = time.perf_counter() - start
            self._metrics.observe_request(scope["path"], scope["method"], status, seconds)
            self._write(scope, status, seconds)

    def _headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        headers.append((b"x-content-type-options", b"nosniff"))
        if self._admission.is_draining and (b"connection", b"close") not in headers:
            headers.append((b"connection", b"close"))
        return headers

    def _write(self, scope: Scope, status: int, seconds: float) -> None:
        if self._stream() is None:
            return
        client = scope.get("client")
        record = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "client": client[0] if client else None,
            "method": scope["method"][:_LONGEST_PATH],
            "path": scope["path"][:_LONGEST_PATH],
            "status": status,
            "milliseconds": round(1000 * seconds, 1),
            **scope.get("reslearn", {}),
        }
        if not self._lines:
            asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)
        self._lines.append(json.dumps(record) + "\n")
