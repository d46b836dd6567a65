"""The shape of the files of a run folder, which are validated whenever they are read.

A file that was changed by hand is refused with its key and value. Keys may be missing, since a run
may have ended early and no reader needs all of them; a reader that needs a missing key names it.
Unknown keys are refused in recipe.json only. The bounds keep later computations finite.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reslearn import recipes
from reslearn.recipes.load import as_json, requirement

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

FORMAT = 1

Whole = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0, le=1e12)]  # seconds or epochs
Percent = Annotated[float, Field(ge=0, le=100)]
# A float32, so that a mean in float64 is finite.
Single = Annotated[float, Field(ge=0, lt=2.0**128)]


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="allow")


class _Numerics(_Shape):
    device: str = ""
    precision: Literal["fp32", "bf16"] = "fp32"
    compiled: bool = False
    threads: Annotated[int, Field(ge=1, le=65_536)] = 1
    instruction_set: str = ""


class _Data(_Shape):
    name: str = ""
    fingerprint: str = ""
    classes: list[str] = []


class _Init(_Shape):
    source: str = ""
    sha256: str = ""
    preprocess: dict[str, Any] | None = None


class _Environment(_Shape):
    format: Annotated[int, Field(ge=1, le=FORMAT)] = FORMAT
    started_at: str = ""
    versions: dict[str, str] = {}
    platform: str = ""
    processor: str | None = None
    device: str = ""
    commit: str | None = None
    command: list[str] = []
    numerics: _Numerics = _Numerics()
    data: _Data = _Data()
    init: _Init = _Init()
    resumed_at: list[Whole] = []


class _Result(_Shape):
    test_top1_error_pct: Percent | None = None
    test_loss: Single | None = None
    train_top1_error_pct: Percent | None = None
    train_loss: Single | None = None
    train_recomputed_top1_error_pct: Percent | None = None
    train_recomputed_loss: Single | None = None
    validation_top1_error_pct: Percent | None = None
    seconds: Amount | None = None
    images: Whole | None = None
    steps: Whole | None = None
    epochs: Amount | None = None
    parameters: Whole | None = None
    macs: Whole | None = None
    test_touched: Whole | None = None
    resumed_at: list[Whole] = []
    warmed_up_at_step: Whole | None = None
    skipped_images: Whole | None = None
    temperature: Annotated[float, Field(gt=0, le=1e3)] | None = None
    sha256: dict[str, str] | None = None  # of weight files
    checksum: str = ""


class _Divergence(_Shape):
    step: Whole = 0
    reason: str


class _Record(_Shape):
    """A line of metrics.jsonl. Loss and error are null if they were not finite."""

    kind: str
    step: Whole
    epoch: Amount
    images: Whole = 0
    seconds: Amount = 0.0
    loss: Single | None = None
    top1_error_pct: Percent | None = None
    lr: Single | None = None
    previous_lr: Single | None = None


_SHAPES: dict[str, type[_Shape]] = {
    "environment.json": _Environment,
    "result.json": _Result,
    "diverged.json": _Divergence,
    "metrics.jsonl": _Record,
}


def problems(name: str, text: bytes) -> list[str]:
    """Validate the content of one file, or one line of metrics.jsonl.

    Args:
        name: Name of the file within the run.
        text: JSON.

    Returns:
        One message per problem.
    """
    if name == "recipe.json":
        return recipes.wrong_in(text)
    # An analysis is only known to be an object; its readers name the keys that they miss.
    shape = _SHAPES.get(name, _Shape)
    try:
        shape.model_validate_json(text)
    except ValidationError as error:
        return [_message(problem) for problem in error.errors(include_url=False)]
    return []


def _message(problem: "ErrorDetails") -> str:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"{key} is missing"
    if not key:
        return requirement(problem)
    return f"{key} = {as_json(problem['input'])}: {requirement(problem)}"
