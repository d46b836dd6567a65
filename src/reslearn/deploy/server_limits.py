"""Limits of the server on bytes, pictures and time, and the error that a broken limit causes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from reslearn.terminal import joined_lines

_LONGEST_MESSAGE = 500


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, and all requests together, may take.

    Attributes:
        body_bytes: Bytes of one request.
        all_bytes: Bytes of all requests that are being read or computed.
        queued_pictures: Pictures that are accepted and not answered yet. More get status 503.
        pictures: Pictures of one request.
        pixels: Pixels of one picture, read from the file header.
        queued_pixels: Pixels of all decoded pictures that wait. Crops for a network are small; an
            exported file may take whole pictures.
        read_seconds: Time to send a request, and time between two requests of a connection.
        answer_seconds: Time from the last byte of a request to its answer.
        connections: Open connections.
        drain_seconds: Time for which a server that ends still accepts connections, so that load
            balancers can look away.
    """

    body_bytes: int = 16 * 2**20
    all_bytes: int = 256 * 2**20
    queued_pictures: int = 128
    pictures: int = 16
    pixels: int = 64_000_000
    queued_pixels: int = 2**27
    read_seconds: float = 15.0
    answer_seconds: float = 30.0
    connections: int = 900
    drain_seconds: float = 0.5

    def __post_init__(self) -> None:
        if self.pictures > self.queued_pictures:
            raise ValueError(
                f"a queue of {self.queued_pictures} pictures is too short: a request may have "
                f"{self.pictures}"
            )
        if self.pixels > self.queued_pixels:
            raise ValueError(
                f"a picture may have {self.pixels:,} pixels, and all together "
                f"{self.queued_pixels:,}: allow fewer pixels per picture"
            )
        if self.body_bytes > self.all_bytes:
            raise ValueError(
                f"a request may have {self.body_bytes:,} bytes, and all requests together "
                f"{self.all_bytes:,}: allow fewer bytes per request"
            )


class RequestError(Exception):
    """A request that gets an error as its answer.

    Args:
        status: Status of HTTP.
        message: What is wrong and what is allowed.
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """Return the answer: one line of JSON."""
        return error_response(self.status, self.message, self.headers)


def busy_error(message: str) -> RequestError:
    """Return the error of a server that has too much to do: 503, and when to try again."""
    return RequestError(503, message, {"Retry-After": "1"})


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer such as {"error": "..."}."""
    text = joined_lines(message[: 2 * _LONGEST_MESSAGE])
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE]} ..."
    return json_response({"error": text}, status, headers)


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return one line of JSON. Letters beyond ASCII are escaped, so every name can be sent."""
    body = json.dumps(content, allow_nan=False) + "\n"
    return Response(body, status, dict(headers or {}), media_type="application/json")


@dataclass
class Admission:
    """Count what the server has accepted. Only the event loop uses it.

    Attributes:
        limits: The limits.
        pictures: Pictures that are accepted and not answered.
        pixels: Pixels of decoded pictures in memory.
        bytes: Bytes of the bodies in memory.
        is_draining: The server ends: answers close their connections.
    """

    limits: Limits
    pictures: int = 0
    pixels: int = 0
    bytes: int = 0
    is_draining: bool = False

    def check_queue(self, num_pictures: int = 1) -> None:
        """Raise the error with status 503 if the queue has no place for the pictures."""
        if self.pictures + num_pictures > self.limits.queued_pictures:
            raise busy_error("the queue is full: send the request again later")

    @contextmanager
    def places(self, num_pictures: int) -> Iterator[None]:
        """Hold places in the queue.

        Raises:
            RequestError: 503, if it is full.
        """
        self.check_queue(num_pictures)
        self.pictures += num_pictures
        try:
            yield
        finally:
            self.pictures -= num_pictures

    @contextmanager
    def room(self, num_pixels: int) -> Iterator[None]:
        """Hold memory for decoded pictures.

        Raises:
            RequestError: 503, if all pictures together have too many pixels.
        """
        if self.pixels + num_pixels > self.limits.queued_pixels:
            raise busy_error("too many pixels wait: send the request again later")
        self.pixels += num_pixels
        try:
            yield
        finally:
            self.pixels -= num_pixels

    def take_bytes(self, num_bytes: int) -> None:
        """Count bytes of a body.

        Raises:
            RequestError: 503, if all requests together have too many.
        """
        if self.bytes + num_bytes > self.limits.all_bytes:
            raise busy_error("too many bytes are being received: send the request again later")
        self.bytes += num_bytes
