"""What the files of a run folder hold: a file that was changed by hand is refused where it is read, by key and value.

Keys may be missing, since a run may have ended early and not every reader needs them all (a table says which one a reader lacked);
in recipe.json alone unknown ones are refused. Bounds are those within which every reader can reckon.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reslearn import recipes
from reslearn.recipes.wording import needed, show

FORMAT = 1

Whole = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0, le=1e12)]  # of seconds or epochs
Percent = Annotated[float, Field(ge=0, le=100)]
Single = Annotated[
    float, Field(ge=0, lt=2.0**128)
]  # a float32, of which a mean in float64 is always finite


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
    checksum: str = ""


class _Divergence(_Shape):
    step: Whole = 0
    reason: str


class _Record(_Shape):
    """A line of metrics.jsonl; loss and error may be null where they were no finite number."""

    kind: str
    step: Whole
    epoch: Amount
    images: Whole = 0
    seconds: Amount = 0.0
    loss: Single | None = None
    top1_error_pct: Percent | None = None
    lr: Single | None = None


_SHAPES: dict[str, type[_Shape]] = {
    "environment.json": _Environment,
    "result.json": _Result,
    "diverged.json": _Divergence,
    "metrics.jsonl": _Record,
}


def problems(name: str, text: bytes) -> list[str]:
    """What is wrong with the JSON `text` as the file `name` of a run (metrics.jsonl: as a line of it); empty where nothing is."""
    if name == "recipe.json":
        return recipes.wrong_in(text)
    try:
        # Of what an analysis left only that it is a table is known here; its readers say what they lack.
        _SHAPES.get(name, _Shape).model_validate_json(text)
    except ValidationError as error:
        told = []
        for problem in error.errors(include_url=False):
            key = ".".join(map(str, problem["loc"]))
            if problem["type"] == "missing":
                told.append(f"{key} is missing")
            else:
                told.append(
                    f"{key} = {show(problem['input'])}: {needed(problem)}"
                    if key
                    else needed(problem)
                )
        return told
    return []
