"""The HTTP interface of served models: routes, OpenAPI, errors.

POST /v1/predict   pictures in, classes with probabilities out
GET  /v1/model     classes and preprocessing of a model
GET  /             a page to try it
GET  /healthz      the process works
GET  /readyz       the process takes requests
GET  /metrics      numbers for Prometheus
"""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO

from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

import reslearn
from reslearn.data import DataError
from reslearn.data.errors import PictureError
from reslearn.data.pictures import Pixels, open_picture
from reslearn.deploy.predictor import Predictor
from reslearn.deploy.server_batches import Answer, BatchingQueue
from reslearn.deploy.server_body import (
    FORM_TYPE,
    JSON_TYPE,
    FormRequest,
    JsonRequest,
    PictureFile,
    PictureRequest,
    parse_body,
)
from reslearn.deploy.server_gate import OPEN_PATHS, PREDICT_PATH, Gate
from reslearn.deploy.server_limits import (
    Admission,
    Limits,
    RequestError,
    busy_error,
    error_response,
    json_response,
)
from reslearn.deploy.server_metrics import AccessLog, ServerMetrics
from reslearn.deploy.server_page import CONTENT_SECURITY_POLICY, PAGE

MODEL_PATH, METRICS_PATH = "/v1/model", "/metrics"
_PATHS = OPEN_PATHS | {PREDICT_PATH, MODEL_PATH, METRICS_PATH}
_SMALL_BODY_BYTES = 2**18
FORMATS = frozenset(("AVIF", "BMP", "GIF", "HEIF", "JPEG", "MPO", "PNG", "TIFF", "WEBP"))
"""Formats of clients. Rarer ones are decoded in Python, which would stop all other requests."""


class ClassProbability(BaseModel):
    """A class and its probability."""

    name: str = Field(alias="class")
    probability: float = Field(ge=0, le=1.0001)


class PictureAnswer(ClassProbability):
    """The most probable class of one picture, and the next ones."""

    picture: str
    top: list[ClassProbability]
    heat_map: str | None = Field(None, description="A PNG as a data address, if asked for.")


class PredictAnswer(BaseModel):
    """The answer of POST /v1/predict: one entry per picture, in order."""

    model: str
    predictions: list[PictureAnswer]


class ModelAnswer(BaseModel):
    """The answer of GET /v1/model."""

    name: str
    models: list[str] = Field(description="Names of all models of the server.")
    network: str
    classes: list[str]
    size_px: int
    runtime: str
    precision: str
    license: str
    recipe_hash: str
    heat_maps: bool = Field(description="Whether the model can explain its answers.")


class StateAnswer(BaseModel):
    """The answer of GET /healthz and /readyz."""

    status: str


class ErrorAnswer(BaseModel):
    """The answer to a request that is refused."""

    error: str


class ModelServer:
    """Served models, the threads behind them, and the app that answers for them.

    Args:
        predictors: Models by name. The first one is the default.
        limits: What requests may take.
        token: The bearer token that requests must have; None: none.
        num_decoders: Threads that decode pictures. None: one per core.
        log_stream: Returns where the access log goes.
    """

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        limits: Limits | None = None,
        *,
        token: str | None = None,
        num_decoders: int | None = None,
        log_stream: Callable[[], TextIO | None] = lambda: None,
    ) -> None:
        self.limits = limits or Limits()
        self.admission = Admission(self.limits)
        self.metrics = ServerMetrics(frozenset(_PATHS), self.admission)
        self.queues = {
            name: BatchingQueue(name, predictor, self.metrics.observe_batch)
            for name, predictor in predictors.items()
        }
        self._decoders = ThreadPoolExecutor(
            num_decoders or os.cpu_count() or 1, thread_name_prefix="decode"
        )
        gate = Gate(_routes(self, has_token=token is not None), self.admission, token)
        self.app: ASGIApp = AccessLog(gate, self.metrics, self.admission, log_stream)

    def start(self) -> None:
        """Start one thread per model."""
        for batching_queue in self.queues.values():
            batching_queue.start()

    def stop(self) -> None:
        """Answer what waits, and end the threads."""
        self._decoders.shutdown()
        for batching_queue in self.queues.values():
            batching_queue.stop()

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken and answered."""
        is_alive = all(batching_queue.is_alive for batching_queue in self.queues.values())
        return is_alive and not self.admission.is_draining

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

    async def predict(self, body: bytes, content_type: str) -> tuple[dict[str, Any], int]:
        """Answer the body of a request. Return the answer and the number of pictures.

        Raises:
            RequestError: If the request cannot be answered.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.limits.answer_seconds):
                if len(body) <= _SMALL_BODY_BYTES:  # a thread would take longer to answer
                    request = parse_body(body, content_type, max_pictures=self.limits.pictures)
                else:
                    request = await loop.run_in_executor(
                        self._decoders,
                        lambda: parse_body(body, content_type, max_pictures=self.limits.pictures),
                    )
                batching_queue = self.queue_of(request.options.model)
                with self.admission.places(len(request.files)):
                    answers = await self._answers(batching_queue, request)
        except TimeoutError:
            raise busy_error(
                f"no answer after {self.limits.answer_seconds:g} seconds: the server is too busy"
            ) from None
        predictions = [
            _picture_answer(file.name, answer, request.options.top)
            for file, answer in zip(request.files, answers, strict=True)
        ]
        return {"model": batching_queue.name, "predictions": predictions}, len(predictions)

    async def _answers(
        self, batching_queue: BatchingQueue, request: PictureRequest
    ) -> list[Answer]:
        predictor = batching_queue.predictor
        with_heat_map = request.options.heat_map
        if with_heat_map and predictor.model.network is None:
            raise RequestError(
                422, f"heat_map: the model {batching_queue.name} is an exported file and has none"
            )
        loop = asyncio.get_running_loop()
        decoding = [
            loop.run_in_executor(self._decoders, _decode, predictor, file, self.limits.pixels)
            for file in request.files
        ]
        pixels: list[Pixels] = []
        # All are awaited, so that none is left behind when one of them is unreadable.
        for result in await asyncio.gather(*decoding, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
            pixels.append(result)
        with self.admission.room(sum(array.shape[0] * array.shape[1] for array in pixels)):
            waiting = [
                asyncio.wrap_future(batching_queue.submit(array, with_heat_map=with_heat_map))
                for array in pixels
            ]
            try:
                return await asyncio.gather(*waiting)
            except MemoryError:
                raise busy_error("the server has no memory left: send fewer pictures") from None


def _decode(predictor: Predictor, file: PictureFile, max_pixels: int) -> Pixels:
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


def _model_answer(server: ModelServer, batching_queue: BatchingQueue) -> dict[str, Any]:
    model = batching_queue.predictor.model
    return {
        "name": batching_queue.name,
        "models": list(server.queues),
        "network": model.card.name,
        "classes": list(model.card.classes),
        "size_px": model.card.preprocess.size_px,
        "runtime": model.engine.runtime,
        "precision": model.card.precision,
        "license": model.card.license,
        "recipe_hash": model.card.recipe_hash,
        "heat_maps": model.network is not None,
    }


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer} for status in statuses}


_REQUEST_BODY = {
    "required": True,
    "content": {
        JSON_TYPE: {"schema": JsonRequest.model_json_schema()},
        FORM_TYPE: {"schema": FormRequest.model_json_schema()},
    },
}


def _routes(server: ModelServer, *, has_token: bool) -> FastAPI:
    """Return the app without gate and log. Its pages of documentation would load foreign code."""
    app = FastAPI(
        title="reslearn serve",
        description="Classes of pictures, by networks that reslearn trained.",
        version=reslearn.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    # Documents the token; the gate checks it.
    security: list[Any] = [Security(HTTPBearer(auto_error=False))] if has_token else []
    _add_error_answers(app)
    _add_state_routes(app, server, security)

    @app.post(
        PREDICT_PATH,
        dependencies=security,
        response_model=PredictAnswer,
        responses=_errors(400, 401, 404, 408, 413, 415, 422, 503),
        openapi_extra={"requestBody": _REQUEST_BODY},
        summary="Predict the classes of pictures",
    )
    async def predict(request: Request) -> Response:
        body = await request.body()
        answer, num_pictures = await server.predict(body, request.headers.get("content-type", ""))
        request.scope["reslearn"] = {"model": answer["model"], "pictures": num_pictures}
        return json_response(answer)

    @app.get(
        MODEL_PATH,
        dependencies=security,
        response_model=ModelAnswer,
        responses=_errors(401, 404, 422),
        summary="Describe a model",
    )
    async def model(name: str | None = None) -> Response:
        return json_response(_model_answer(server, server.queue_of(name)))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}
        return Response(PAGE, media_type="text/html", headers=headers)

    return app


def _add_state_routes(app: FastAPI, server: ModelServer, security: list[Any]) -> None:
    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", response_model=StateAnswer, summary="Whether the process works")
    async def healthz() -> Response:
        return json_response({"status": "ok"})

    @app.head("/readyz", include_in_schema=False)
    @app.get(
        "/readyz",
        response_model=StateAnswer,
        responses=_errors(503),
        summary="Whether the process takes requests",
    )
    async def readyz() -> Response:
        if not server.is_ready:
            raise busy_error("the server does not take requests")
        return json_response({"status": "ready"})

    @app.get(
        METRICS_PATH,
        dependencies=security,
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **_errors(401)},
        summary="Numbers for Prometheus",
    )
    async def metrics() -> Response:
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_error_answers(app: FastAPI) -> None:
    """Give every error the same form: one line of JSON."""

    @app.exception_handler(RequestError)
    async def refuse(request: Request, error: RequestError) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def refuse_route(request: Request, error: HTTPException) -> Response:
        return error_response(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def refuse_value(request: Request, error: RequestValidationError) -> Response:
        detail = error.errors()[0]
        return error_response(422, f"{detail['loc'][-1]}: {detail['msg']}")

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:
        return error_response(500, "the server failed; its log has the reason")
