"""`reslearn serve`: answer requests for the classes of pictures over HTTP."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslearn.cli.model_options import InputArguments, takes_input_arguments
from reslearn.cli.options import MACHINE, DeviceOption, ThreadsOption
from reslearn.terminal import print_lines

if TYPE_CHECKING:
    from reslearn.deploy.engine_choice import ServeEngine
    from reslearn.deploy.predictor import Predictor
    from reslearn.deploy.server_limits import Limits
    from reslearn.interop.as_bundle import InputOptions

EXAMPLES = (
    "reslearn serve runs/photos",
    "reslearn serve cats=runs/cats dogs=dogs.onnx --port 9000",
    "reslearn serve reslearn:resnet20 --host 0.0.0.0 --token-file token.txt",
    "curl -F image=@photo.jpg http://127.0.0.1:8000/v1/predict",
)
NETWORK, LIMITS = "Network address and access", "Limits"
TOKEN_VARIABLE = "RESLEARN_TOKEN"
_MIB = 2**20
_LOCAL = ("127.0.0.1", "::1", "localhost")

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL...",
        help="A run folder, a bundle, an exported file, or a name such as reslearn:resnet20. "
        "Several models need names, as in cats=runs/a dogs=runs/b.",
    ),
]
Host = Annotated[
    str,
    typer.Option(rich_help_panel=NETWORK, help="Listen on this address. 0.0.0.0 is all addresses."),
]
Port = Annotated[
    int,
    typer.Option(
        min=0, max=65535, rich_help_panel=NETWORK, help="Listen on this port; 0 takes a free one."
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=NETWORK,
        help="Requests must have the bearer token in the first line of this file. "
        f"{TOKEN_VARIABLE} in the environment does the same.",
    ),
]
AccessLogOption = Annotated[
    bool,
    typer.Option(
        "--access-log/--no-access-log",
        rich_help_panel=NETWORK,
        help="Print one JSON line per request.",
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        rich_help_panel=MACHINE,
        help="Compute networks with torch, onnx, openvino, or auto: the fastest here, which is "
        "measured at the first start. Exported files have their own engine.",
    ),
]
BatchSize = Annotated[
    int, typer.Option(min=1, rich_help_panel=MACHINE, help="Largest batch, in pictures.")
]
QueueSize = Annotated[
    int,
    typer.Option(
        min=1,
        rich_help_panel=LIMITS,
        help="Accepted pictures without an answer, of all models. Further requests get status 503 "
        "and Retry-After.",
    ),
]
MaxMib = Annotated[
    int,
    typer.Option(min=1, max=1024, rich_help_panel=LIMITS, help="Largest request body, in MiB."),
]
MaxMegapixels = Annotated[
    float,
    typer.Option(
        min=0.1,
        max=128,
        rich_help_panel=LIMITS,
        help="Largest picture, in million pixels. Larger ones are refused before they are decoded.",
    ),
]
DrainSeconds = Annotated[
    float,
    typer.Option(
        min=0,
        rich_help_panel=LIMITS,
        help="Time for which a stopping server still accepts connections, so that load balancers "
        "notice /readyz, in seconds.",
    ),
]
ReadSeconds = Annotated[
    float,
    typer.Option(
        min=0.1,
        rich_help_panel=LIMITS,
        help="Time limit for receiving a request, and for an idle connection, in seconds.",
    ),
]
AnswerSeconds = Annotated[
    float,
    typer.Option(min=0.1, rich_help_panel=LIMITS, help="Time limit for an answer, in seconds."),
]


@takes_input_arguments
def serve(
    models: Models,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token_file: TokenFile = None,
    access_log: AccessLogOption = True,
    engine: EngineOption = "auto",
    batch_size: BatchSize = 16,
    queue_size: QueueSize = 128,
    max_mib: MaxMib = 16,
    max_megapixels: MaxMegapixels = 64.0,
    read_seconds: ReadSeconds = 15.0,
    answer_seconds: AnswerSeconds = 30.0,
    drain_seconds: DrainSeconds = 0.5,
    *,
    inputs: InputArguments,
    device: DeviceOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Serve predictions over HTTP, with a web page.

    POST /v1/predict takes files as a form, or base64 in JSON. Waiting requests are computed in
    batches. SIGTERM and Ctrl-C stop the server after all accepted requests are answered.
    """
    _require_extra()
    from reslearn.cli.predict import choose_device, use_threads
    from reslearn.deploy.server import HttpServer, address_of, bind
    from reslearn.deploy.server_app import ModelServer
    from reslearn.deploy.server_models import named_sources
    from reslearn.train.numerics import processor_name

    token = read_token(token_file)
    seconds = (read_seconds, answer_seconds, drain_seconds)
    limits = _limits(queue_size, max_mib, max_megapixels, *seconds)
    sources = named_sources(models)
    use_threads(threads)
    options = inputs.options()
    inference: dict[str, Any] = {
        "engine": _engine(engine),
        "device": choose_device(device),
        "processor": processor_name(),
        "threads": threads,
        "batch_size": batch_size,
    }
    with bind(host, port) as listener:
        predictors = _open_models(sources, options, inference)
        log_stream = (lambda: sys.stdout) if access_log else (lambda: None)
        server = ModelServer(
            predictors, limits, token=token, num_decoders=threads, log_stream=log_stream
        )
        _warn_of_no_token(host, token)
        _log_warnings()
        http_server = HttpServer(server, listener)  # from here on connections are accepted
        print_lines(f"serving {', '.join(sources)} on {address_of(listener)}", file=sys.stderr)
        http_server.serve_until_stopped()


def _open_models(
    sources: dict[str, str], options: InputOptions, inference: dict[str, Any]
) -> dict[str, Predictor]:
    """Open the models by name, and print how their engines were chosen."""
    from reslearn.deploy.server_models import open_served

    predictors = {}
    for name, source in sources.items():
        predictors[name], choice = open_served(source, options, **inference)
        if choice is not None:
            print_lines(f"{name}: {choice.text()}", file=sys.stderr)
    _spare_collector()
    return predictors


def _warn_of_no_token(host: str, token: str | None) -> None:
    if token is not None or host in _LOCAL:
        return
    print_lines(
        f"reslearn: warning: everybody who reaches {host} may send requests, since there is no "
        "token (--token-file)",
        file=sys.stderr,
    )


def read_token(path: Path | None) -> str | None:
    """Return the bearer token of the file, or of the environment; None if there is neither.

    Raises:
        ValueError: If the token is empty or no ASCII text.
    """
    text = os.environ.get(TOKEN_VARIABLE)
    origin = TOKEN_VARIABLE
    if path is not None:
        origin = str(path)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        text = lines[0] if lines else ""
    if text is None:
        return None
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"{origin} has no token: it needs ASCII letters without spaces")
    return token


def _require_extra() -> None:
    from reslearn.deploy.engines import SERVER_MODULES, import_extra

    for module in SERVER_MODULES:
        import_extra(module)


def _limits(
    queue_size: int,
    max_mib: int,
    max_megapixels: float,
    read_seconds: float,
    answer_seconds: float,
    drain_seconds: float,
) -> Limits:
    from reslearn.deploy.server_limits import Limits

    default = Limits()
    return Limits(
        body_bytes=max_mib * _MIB,
        all_bytes=max(default.all_bytes, 2 * max_mib * _MIB),
        queued_pictures=queue_size,
        pictures=min(default.pictures, queue_size),
        pixels=round(1e6 * max_megapixels),
        read_seconds=read_seconds,
        answer_seconds=answer_seconds,
        drain_seconds=drain_seconds,
    )


def _engine(name: str) -> ServeEngine:
    from reslearn.deploy.engine_choice import ServeEngine

    try:
        return ServeEngine(name)
    except ValueError:
        names = ", ".join(ServeEngine)
        raise ValueError(f"--engine {name}: allowed are {names}") from None


def _spare_collector() -> None:
    """Leave out what is loaded by now when Python looks for garbage.

    Hundreds of thousands of objects of the libraries stay for ever, and to visit them all would
    stop every request for a tenth of a second.
    """
    import gc

    gc.collect()
    gc.freeze()


def _log_warnings() -> None:
    import logging

    from reslearn.deploy.server import send_log_to

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("reslearn: %(levelname)s: %(message)s"))
    send_log_to(handler)
