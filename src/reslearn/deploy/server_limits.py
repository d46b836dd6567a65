"""Limits of the server on bytes, pictures and time, and the error that a broken limit causes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from reslearn.data.pictures import Pixels
from reslearn.terminal import joined_lines

_LONGEST_MESSAGE = 500
# `json.dumps` would make a new encoder for each answer.
_ENCODER = json.JSONEncoder(allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request, and all requests together, may take.

    Attributes:
        body_bytes: Bytes of one request.
        all_bytes: Bytes of all requests that are being read or computed.
        queued_pictures: Pictures that are accepted and not answered yet. More get status 503.
        pictures: Pictures of one request.
        heat_maps: Pictures with a heat map that are accepted and not answered yet. They are drawn
            one at a time. More get status 503.
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
    heat_maps: int = 16
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
        if self.pictures > self.heat_maps:
            raise ValueError(
                f"a request may have {self.pictures} pictures, and {self.heat_maps} heat maps are "
                "accepted: accept more heat maps"
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


def failure_response() -> Response:
    """Return the answer for an error of the server itself, which the log explains."""
    return error_response(500, "the server failed; its log has the reason")


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return one line of JSON."""
    return Response(json_line(content), status, dict(headers or {}), media_type="application/json")


def json_line(content: Any) -> bytes:
    """Return one line of JSON. Letters beyond ASCII are escaped, so every name can be sent."""
    return _ENCODER.encode(content).encode() + b"\n"


@dataclass
class Admission:
    """Count what the server has accepted. Only the event loop uses it, except for the pixels.

    Attributes:
        limits: The limits.
        pictures: Pictures that are accepted and not answered.
        heat_maps: Those of them that get a heat map.
        pixels: Pixels of decoded pictures in memory.
        bytes: Bytes of the bodies in memory.
        is_draining: The server ends: answers close their connections.
    """

    limits: Limits
    pictures: int = 0
    heat_maps: int = 0
    pixels: int = 0
    bytes: int = 0
    is_draining: bool = False
    _pixel_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def check_queue(self, num_pictures: int = 1) -> None:
        """Raise the error with status 503 if the queue has no place for the pictures."""
        if self.pictures + num_pictures > self.limits.queued_pictures:
            raise busy_error("the queue is full: send the request again later")

    @contextmanager
    def places(self, num_pictures: int, *, with_heat_map: bool = False) -> Iterator[None]:
        """Hold places in the queue, and in the queue of heat maps.

        Raises:
            RequestError: 503, if it is full.
        """
        self.check_queue(num_pictures)
        num_heat_maps = num_pictures if with_heat_map else 0
        if self.heat_maps + num_heat_maps > self.limits.heat_maps:
            raise busy_error(
                "too many heat maps wait: send the request again later, or without heat_map"
            )
        self.pictures += num_pictures
        self.heat_maps += num_heat_maps
        try:
            yield
        finally:
            self.pictures -= num_pictures
            self.heat_maps -= num_heat_maps

    def take_pixels(self, pixels: Pixels) -> None:
        """Count the memory of a decoded picture. Threads may call it.

        Raises:
            RequestError: 503, if all pictures together have too many pixels.
        """
        count = pixels.shape[0] * pixels.shape[1]
        with self._pixel_lock:
            if self.pixels + count > self.limits.queued_pixels:
                raise busy_error("too many pixels wait: send the request again later")
            self.pixels += count

    def give_pixels(self, *pictures: Pixels) -> None:
        """Give back what `take_pixels` has counted. Threads may call it."""
        count = sum(pixels.shape[0] * pixels.shape[1] for pixels in pictures)
        with self._pixel_lock:
            self.pixels -= count

    def take_bytes(self, num_bytes: int) -> None:
        """Count bytes of a body.

        Raises:
            RequestError: 503, if all requests together have too many.
        """
        if self.bytes + num_bytes > self.limits.all_bytes:
            raise busy_error("too many bytes are being received: send the request again later")
        self.bytes += num_bytes
