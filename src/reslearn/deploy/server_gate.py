"""The gate before the app: the token, and the body of a request within its limits.

A refused upload is still read for a moment and thrown away. Otherwise the client would see a broken
connection in place of the answer.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reslearn.deploy.server_limits import Admission, RequestError

PREDICT_PATH = "/v1/predict"
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
"""Paths that need no token."""
_LINGER_SECONDS, _LINGER_BYTES = 2.0, 64 * 2**20


class ClientGoneError(Exception):
    """The client closed its connection before it had sent the whole request."""


class Gate:
    """An ASGI middleware that lets a request pass with its whole body in memory.

    Args:
        app: Receives what passes.
        admission: Counts bytes and pictures.
        token: The bearer token that requests must have; None: none.
    """

    def __init__(self, app: ASGIApp, admission: Admission, token: str | None = None) -> None:
        self._app = app
        self._admission = admission
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, read its body, and pass both to the app."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        counted_bytes = CountedBytes(self._admission)
        try:
            try:
                self._check_token(scope)
                # Of any path: the router knows more spellings of a path than this gate.
                body = (
                    await self._read(scope, receive, counted_bytes)
                    if scope["method"] == "POST"
                    else b""
                )
            except RequestError as error:
                counted_bytes.release()
                await _refuse(error, scope, receive, send)
                return
            except ClientGoneError:
                return
            await self._app(scope, _replay(body, receive), send)
        finally:
            counted_bytes.release()

    def _check_token(self, scope: Scope) -> None:
        if self._token is None or scope["path"] in OPEN_PATHS:
            return
        scheme, _, token = header(scope["headers"], b"authorization").partition(b" ")
        is_valid = hmac.compare_digest(token.strip(), self._token)
        if scheme.lower() != b"bearer" or not is_valid:
            raise RequestError(
                401,
                "the token is missing or wrong: send the header `Authorization: Bearer TOKEN`",
                {"WWW-Authenticate": "Bearer"},
            )

    async def _read(self, scope: Scope, receive: Receive, counted_bytes: CountedBytes) -> bytes:
        """Read the whole body. What the client declares is checked first, then what it sends."""
        limits = self._admission.limits
        self._admission.check_queue()
        names = {name for name, _ in scope["headers"]}
        if {b"content-length", b"transfer-encoding"} <= names:
            raise RequestError(400, "Content-Length and Transfer-Encoding exclude each other")
        declared = header(scope["headers"], b"content-length")
        if declared.isdigit() and int(declared[:20]) > limits.body_bytes:
            raise _too_large(limits.body_bytes)
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(limits.read_seconds):
                async for chunk in _chunks(receive):
                    if counted_bytes.count + len(chunk) > limits.body_bytes:
                        raise _too_large(limits.body_bytes)
                    counted_bytes.take(len(chunk))
                    chunks.append(chunk)
        except TimeoutError:
            raise RequestError(
                408, f"the request was not complete after {limits.read_seconds:g} seconds"
            ) from None
        return b"".join(chunks)


class CountedBytes:
    """The bytes of one request that count for the limit of all requests together."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.count = 0

    def take(self, num_bytes: int) -> None:
        """Count bytes.

        Raises:
            RequestError: 503, if all requests together have too many.
        """
        self._admission.take_bytes(num_bytes)
        self.count += num_bytes

    def release(self) -> None:
        """Give all of them back."""
        self._admission.bytes -= self.count
        self.count = 0


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """Return the value of a header; b"" if it is missing or given more than once."""
    values = [value for key, value in headers if key == name]
    return values[0] if len(values) == 1 else b""


async def _chunks(receive: Receive) -> AsyncIterator[bytes]:
    more_body = True
    while more_body:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        yield message.get("body", b"")
        more_body = message.get("more_body", False)


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"the request is too large: {limit:,} bytes are allowed")


def _replay(body: bytes, receive: Receive) -> Receive:
    is_sent = False

    async def receive_body() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_body


async def _refuse(error: RequestError, scope: Scope, receive: Receive, send: Send) -> None:
    """Send the error, read on for a moment, and close the connection."""
    response = error.response()
    response.headers["connection"] = "close"
    await send(
        {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
    )
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    expects_continue = header(scope["headers"], b"expect").lower() == b"100-continue"
    if error.status != 408 and not expects_continue:
        await _discard(receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    num_bytes = 0
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            async for chunk in _chunks(receive):
                num_bytes += len(chunk)
                if num_bytes > _LINGER_BYTES:
                    return
    except (TimeoutError, ClientGoneError):
        return
