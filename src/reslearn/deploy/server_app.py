"""The HTTP interface of served models: routes, OpenAPI, errors.

POST /v1/predict   pictures in, classes with probabilities out
GET  /v1/model     classes and preprocessing of a model
GET  /             a page to try it
GET  /healthz      the process works
GET  /readyz       the process takes requests
GET  /metrics      numbers for Prometheus
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TextIO

from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

import reslearn
from reslearn.deploy.predictor import Predictor
from reslearn.deploy.server_batches import BatchingQueue
from reslearn.deploy.server_body import FORM_TYPE, JSON_TYPE, FormRequest, JsonRequest
from reslearn.deploy.server_gate import OPEN_PATHS, PREDICT_PATH, Gate
from reslearn.deploy.server_limits import (
    Admission,
    Limits,
    RequestError,
    busy_error,
    error_response,
    failure_response,
    json_response,
)
from reslearn.deploy.server_metrics import AccessLog, ServerMetrics
from reslearn.deploy.server_page import CONTENT_SECURITY_POLICY, PAGE
from reslearn.deploy.server_predict import PredictService, PredictShortcut

MODEL_PATH, METRICS_PATH = "/v1/model", "/metrics"
_PATHS = OPEN_PATHS | {PREDICT_PATH, MODEL_PATH, METRICS_PATH}


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
        self.service = PredictService(
            predictors, self.admission, self.metrics.observe_batch, num_decoders
        )
        routes = PredictShortcut(_routes(self, has_token=token is not None), self.service)
        gate = Gate(routes, self.admission, token)
        self._log = AccessLog(gate, self.metrics, self.admission, log_stream)
        self.app: ASGIApp = self._log

    def start(self) -> None:
        """Start the threads that decode and compute."""
        self.service.start()

    def stop(self) -> None:
        """Answer what waits, end the threads, and write the rest of the access log."""
        self.service.stop()
        self._log.flush()

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken and answered."""
        is_alive = all(batching_queue.is_alive for batching_queue in self.service.queues.values())
        return is_alive and not self.admission.is_draining


def _model_answer(server: ModelServer, batching_queue: BatchingQueue) -> dict[str, Any]:
    model = batching_queue.predictor.model
    return {
        "name": batching_queue.name,
        "models": list(server.service.queues),
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
        answer = await server.service.answer(body, request.headers.get("content-type", ""))
        request.scope["reslearn"] = answer.log_fields
        return Response(answer.content, media_type=JSON_TYPE)

    @app.get(
        MODEL_PATH,
        dependencies=security,
        response_model=ModelAnswer,
        responses=_errors(401, 404, 422),
        summary="Describe a model",
    )
    async def model(name: str | None = None) -> Response:
        return json_response(_model_answer(server, server.service.queue_of(name)))

    @app.head("/", include_in_schema=False)
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
        return failure_response()
