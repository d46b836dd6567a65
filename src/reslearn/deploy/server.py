"""Run served models over HTTP: sockets, time limits of connections, graceful stop.

A server that receives SIGTERM or Ctrl-C first reports on /readyz that it is not ready, and
answers with `Connection: close`. After `Limits.drain_seconds` it accepts no connection any more,
answers every request that it has received, and ends. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from reslearn.deploy.server_app import ModelServer
from reslearn.deploy.server_limits import Limits, error_response

_BACKLOG = 1024
# A connection that was opened just before the end gets so long to send its request.
_LAST_REQUEST_SECONDS = 0.25
_POLL_SECONDS = 0.05
# At the end, connections that the system has accepted are taken from it for so long.
_LAST_ACCEPT_SECONDS = 1.0
_START_SECONDS, _STOP_SECONDS = 0.005, 60.0
_MAX_HEAD_BYTES = 2**16
# A request that waits behind another one takes a hundred times as much memory as its bytes.
_MAX_PIPELINED = 32


class HttpServer(uvicorn.Server):
    """A server for the models of `model_server`.

    Args:
        model_server: Models and app.
        listener: A bound socket; see `bind`.
    """

    def __init__(self, model_server: ModelServer, listener: socket.socket) -> None:
        self._model_server = model_server
        self._listener = listener
        listener.listen(_BACKLOG)  # connections wait from here on, and none is refused
        limits = model_server.limits
        config = uvicorn.Config(
            model_server.app,
            http=_protocol_class(limits),
            ws="none",
            lifespan="off",
            loop="auto",  # uvloop where it is installed
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=max(1, round(limits.read_seconds)),
            timeout_graceful_shutdown=round(limits.read_seconds + limits.answer_seconds) + 1,
        )
        super().__init__(config)

    def serve_until_stopped(self) -> None:
        """Serve until a signal or `stop`, and return when all requests are answered."""
        self._model_server.start()
        try:
            self.run(sockets=[self._listener])
        finally:
            self._listener.close()
            self._model_server.stop()

    def stop(self) -> None:
        """Begin to end. Threads may call it."""
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End gracefully at the first signal. The base class would then die of the signal."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then end as the base class does."""
        self._model_server.admission.is_draining = True
        clock = asyncio.get_running_loop()
        end = clock.time() + self._model_server.limits.drain_seconds
        while clock.time() < end and not self.force_exit:
            await asyncio.sleep(_POLL_SECONDS)
        end = clock.time() + _LAST_ACCEPT_SECONDS
        while clock.time() < end and select.select([self._listener], [], [], 0)[0]:
            await asyncio.sleep(0)
        await super().shutdown(sockets)


@contextmanager
def serving(model_server: ModelServer) -> Iterator[str]:
    """Serve on a free port of this machine in a thread, and yield the address."""
    listener = bind("127.0.0.1", 0)
    server = HttpServer(model_server, listener)
    thread = threading.Thread(target=server.serve_until_stopped, name="server")
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(_START_SECONDS)
        yield address_of(listener)
    finally:
        server.stop()
        thread.join(_STOP_SECONDS)
    if thread.is_alive():
        raise RuntimeError("the server did not stop")


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's connection, with limits on heads, waiting requests, and the reading of an answer.

    uvicorn waits without end for the first byte of a connection, for the rest of a head, and for a
    client that does not take its answer. It keeps a head of any length, and any number of requests
    that a client sends without waiting for answers.
    """

    limits: Limits

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._reader_timer: asyncio.TimerHandle | None = None
        self._is_within_head = True
        self._num_head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit, or refuse one connection too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._answer_and_close(503, "too many connections: connect again later")
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Handle bytes of the client."""
        self._is_within_head = True
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            # The error of a callback says only that there was one.
            has_reason = isinstance(error.__context__, ValueError | httptools.HttpParserError)
            self._answer_and_close(400, str(error.__context__ if has_reason else error))
        # Bytes that end no head and belong to no body: a head, a trailer, an extension of a chunk.
        self._num_head_bytes = self._num_head_bytes + len(data) if self._is_within_head else 0
        if self._num_head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self._answer_and_close(400, "the head of the request is too long")
        self._watch_head()

    def _parse(self, data: bytes) -> None:
        """Parse data, and ignore wishes for another protocol, as RFC 9110 (7.8) allows.

        httptools throws the body of such a request away. curl and Java send them.
        """
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            method, version = self.parser.get_method(), self.parser.get_http_version().encode()
            lines = [method + b" " + self.url + b" HTTP/" + version]
            lines += [b": ".join(header) for header in self.headers if header[0] != b"upgrade"]
            self.parser = httptools.HttpRequestParser(self)
            rest_of_data = data[upgrade.args[0] :]
            self._parse(b"\r\n".join([*lines, b"", rest_of_data]))

    def on_headers_complete(self) -> None:
        """Begin to answer a request, or queue it behind the one that is being answered.

        Raises:
            ValueError: If too many requests wait. The parser stops, and the client gets 400.
        """
        self._is_within_head = False
        if len(self.pipeline) == _MAX_PIPELINED:
            raise ValueError("too many requests without waiting for answers")
        if not self.parser.should_upgrade():
            super().on_headers_complete()
        elif self.parser.get_method() == b"CONNECT":
            raise ValueError("the server is no proxy")

    def on_body(self, body: bytes) -> None:
        """Collect a part of a body."""
        self._is_within_head = False
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        self._is_within_head = False
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the time limit of a closed connection."""
        super().connection_lost(exc)
        self._stop_timer()
        self._stop_reader_timer()

    def pause_writing(self) -> None:
        """Start the time limit of a client that does not take its answer."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """End it, since the client takes its answer."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stop_reader_timer()

    def on_response_complete(self) -> None:
        """Continue with the next request, or close."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_reader()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was idle for too long."""
        super().timeout_keep_alive_handler()
        self._watch_reader()

    def shutdown(self) -> None:
        """Close the connection, but let a request arrive that is on its way."""
        if self._waits_for_request:
            self.loop.call_later(_LAST_REQUEST_SECONDS, self._close_if_waiting)
        else:
            super().shutdown()

    @property
    def _waits_for_request(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _watch_head(self) -> None:
        if not self._waits_for_request:
            self._stop_timer()
        elif self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self.limits.read_seconds, self._end_of_time)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_of_time(self) -> None:
        self._head_timer = None
        self._close_if_waiting()

    def _close_if_waiting(self) -> None:
        if self._waits_for_request and not self.transport.is_closing():
            self.transport.close()
            self._watch_reader()

    def _watch_reader(self) -> None:
        if self._reader_timer is None:
            self._reader_timer = self.loop.call_later(
                self.limits.read_seconds, self.transport.abort
            )

    def _stop_reader_timer(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def _answer_and_close(self, status: int, message: str) -> None:
        if not self._waits_for_request and self.cycle.response_started:
            self.transport.close()
            self._watch_reader()
            return
        response = error_response(status, message, {"Retry-After": "1"} if status == 503 else None)
        lines = [f"HTTP/1.1 {status} Error", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + bytes(response.body))
        self.transport.close()
        self._watch_reader()


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        ValueError: If the address cannot be used. The message says why.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"cannot listen on {host}, port {port} ({reason})") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address of a socket, such as "http://127.0.0.1:8000"."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def send_log_to(handler: logging.Handler) -> None:
    """Send warnings and errors of the server to `handler`."""
    logger = logging.getLogger("uvicorn")
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING)
    logger.propagate = False


def _protocol_class(limits: Limits) -> type[TimedProtocol]:
    return type("LimitedProtocol", (TimedProtocol,), {"limits": limits})
