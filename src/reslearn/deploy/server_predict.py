"""POST /v1/predict: the body of a request in, one line of JSON out."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from reslearn.data import DataError
from reslearn.data.errors import PictureError
from reslearn.data.pictures import Pixels, open_picture
from reslearn.deploy.predictor import Predictor
from reslearn.deploy.server_batches import (
    Answer,
    BatchingQueue,
    DecodedPicture,
    Outcome,
    PendingRequest,
    ThreadTeam,
)
from reslearn.deploy.server_body import JSON_TYPE, PictureFile, PictureRequest, parse_body
from reslearn.deploy.server_gate import PREDICT_PATH, header
from reslearn.deploy.server_limits import (
    Admission,
    RequestError,
    busy_error,
    failure_response,
    json_line,
)

FORMATS = frozenset(("AVIF", "BMP", "GIF", "HEIF", "JPEG", "MPO", "PNG", "TIFF", "WEBP"))
"""Formats of clients. Rarer ones are decoded in Python, which would stop all other requests."""
_SMALL_BODY_BYTES = 2**18


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedAnswer:
    """The answer to a request.

    Attributes:
        content: One line of JSON.
        log_fields: What the access log says of the request.
    """

    content: bytes
    log_fields: Mapping[str, Any]


class PredictService:
    """Answer requests by models: parse, decode, compute, and write the answer.

    Args:
        predictors: Models by name. The first one is the default.
        admission: Counts pictures and pixels.
        observe_batch: See `BatchingQueue`.
        num_decoders: Threads that decode pictures. None: one per core.
    """

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        admission: Admission,
        observe_batch: Callable[[str, int, float], None],
        num_decoders: int | None = None,
    ) -> None:
        self._admission = admission
        self._decoders = ThreadTeam("decode", num_decoders or os.cpu_count() or 1)
        self._drawers = ThreadTeam("heat map", 1)
        self.queues = {
            name: BatchingQueue(name, predictor, admission, observe_batch, self._drawers)
            for name, predictor in predictors.items()
        }

    def start(self) -> None:
        """Start all threads, one of them per model."""
        for batching_queue in self.queues.values():
            batching_queue.start()
        for team in (self._decoders, self._drawers):
            team.start()

    def stop(self) -> None:
        """Answer what waits, and end the threads, in the order in which pictures pass them."""
        self._decoders.stop()
        for batching_queue in self.queues.values():
            batching_queue.stop()
        self._drawers.stop()

    def queue_of(self, name: str | None) -> BatchingQueue:
        """Return the queue of a model.

        Raises:
            RequestError: 404, if there is no such model.
        """
        batching_queue = self.queues.get(next(iter(self.queues)) if name is None else name)
        if batching_queue is None:
            names = ", ".join(self.queues)
            raise RequestError(404, f"there is no model {name!r}: the server has {names}")
        return batching_queue

    async def answer(self, body: bytes, content_type: str) -> ServedAnswer:
        """Answer the body of a request.

        Raises:
            RequestError: If the request cannot be answered.
        """
        limits = self._admission.limits
        try:
            async with asyncio.timeout(limits.answer_seconds):
                parse = partial(parse_body, body, content_type, max_pictures=limits.pictures)
                if len(body) <= _SMALL_BODY_BYTES:  # a thread would take longer to answer
                    request = parse()
                else:
                    request = await self._decoders.run(parse)
                batching_queue = self.queue_of(request.options.model)
                answers = await self._answers(batching_queue, request)
        except TimeoutError:
            raise busy_error(
                f"no answer after {limits.answer_seconds:g} seconds: the server is too busy"
            ) from None
        predictions = [
            _picture_answer(file.name, answer, request.options.top)
            for file, answer in zip(request.files, answers, strict=True)
        ]
        return ServedAnswer(
            content=json_line({"model": batching_queue.name, "predictions": predictions}),
            log_fields={"model": batching_queue.name, "pictures": len(predictions)},
        )

    async def _answers(
        self, batching_queue: BatchingQueue, request: PictureRequest
    ) -> list[Answer]:
        with_heat_map = request.options.heat_map
        if with_heat_map and batching_queue.predictor.model.network is None:
            raise RequestError(
                422, f"heat_map: the model {batching_queue.name} is an exported file and has none"
            )
        with self._admission.places(len(request.files), with_heat_map=with_heat_map):
            pending = PendingRequest(request.files, with_heat_map=with_heat_map)
            for index in range(len(request.files)):
                self._decoders.submit(partial(self._decode, batching_queue, pending, index))
            try:
                return await pending.answers
            except MemoryError:
                raise busy_error("the server has no memory left: send fewer pictures") from None
            finally:
                pending.close()

    def _decode(self, batching_queue: BatchingQueue, request: PendingRequest, index: int) -> None:
        """Decode a picture, and queue it or refuse its request. A decoding thread calls it."""
        file = request.file(index)
        if file is None or not request.is_open:
            return
        try:
            max_pixels = self._admission.limits.pixels
            pixels = decode_picture(batching_queue.predictor, file, max_pixels)
            self._admission.take_pixels(pixels)
        except Exception as error:  # also those of the server itself: the client gets status 500
            request.post([Outcome(request, index, error)])
        else:
            batching_queue.put(DecodedPicture(request, index, pixels))


class PredictShortcut:
    """An ASGI app that answers POST /v1/predict itself, and passes all other requests on.

    FastAPI's routes and dependencies would take longer than all other work for a small picture. The
    route is in its OpenAPI document, and other spellings of the path reach the same service.

    Args:
        app: Answers all other requests.
        service: Answers predictions. The gate has checked the request and read its body.
    """

    def __init__(self, app: ASGIApp, service: PredictService) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        is_prediction = scope.get("path") == PREDICT_PATH and scope.get("method") == "POST"
        if not is_prediction:
            await self._app(scope, receive, send)
            return
        message = await receive()
        content_type = header(scope["headers"], b"content-type").decode("latin-1")
        try:
            answer = await self._service.answer(message["body"], content_type)
        except RequestError as error:
            await error.response()(scope, receive, send)
            return
        except Exception:
            await failure_response()(scope, receive, send)
            raise  # the server logs it
        scope["reslearn"] = answer.log_fields
        await _send_json(answer.content, send)


async def _send_json(content: bytes, send: Send) -> None:
    headers = [
        (b"content-length", str(len(content)).encode()),
        (b"content-type", JSON_TYPE.encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": False})


def decode_picture(predictor: Predictor, file: PictureFile, max_pixels: int) -> Pixels:
    """Return what `Predictor.predict_pixels` takes of a picture of a client.

    Raises:
        RequestError: 422 if the picture cannot be read, 503 if the machine lacks memory.
    """
    try:
        image = open_picture(
            io.BytesIO(file.content), predictor.draft_px, max_pixels=max_pixels, formats=FORMATS
        )
    except PictureError as error:
        raise RequestError(422, f"{file.name} cannot be read ({error.reason})") from None
    except (DataError, MemoryError):  # the machine is at fault, as `open_picture` says
        raise busy_error(f"{file.name} cannot be read now: the server lacks memory") from None
    try:
        return predictor.pixels_of(image)
    except DataError as error:
        raise RequestError(422, f"{file.name}: {error}") from None
    except MemoryError:
        raise busy_error(f"{file.name} cannot be read now: the server lacks memory") from None


def _picture_answer(name: str, answer: Answer, count: int) -> dict[str, Any]:
    top = [
        {"class": label, "probability": probability}
        for label, probability in answer.prediction.top(count)
    ]
    record = {"picture": name, **top[0], "top": top}
    return record if answer.heat_map is None else {**record, "heat_map": answer.heat_map}
