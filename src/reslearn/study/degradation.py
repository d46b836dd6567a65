"""From rows to degradation verdicts, the same for the command line and for the page: by which error, on which kinds, and why not."""

from collections.abc import Iterable, Sequence

from reslearn.study.collect import Kind, Row
from reslearn.study.verdicts import MARGIN_PCT, DegradationVerdict, DepthRow, degradation_verdict


def depth_rows(
    rows: Iterable[Row], *, kind: Kind, field: str = "train_recomputed_top1_error_pct"
) -> list[DepthRow]:
    """The runs of one kind as `degradation_verdict` takes them. ValueError where a run has no such field or one depth has two recipes."""
    chosen = [row for row in rows if row.kind == kind and row.depth is not None]
    for row in chosen:
        if row.result.get(field) is None:
            raise ValueError(f"{row.folder} has no {field} in its result.json")
        others = {other.protocol for other in chosen if other.depth == row.depth}
        if len(others) > 1:
            raise ValueError(
                f"runs of {row.model} follow {len(others)} recipes: choose one before a verdict"
            )
    return [DepthRow(row.depth or 0, row.seed, float(row.result[field])) for row in chosen]


def degradation_verdicts(
    rows: Sequence[Row], *, margin_pct: float = MARGIN_PCT
) -> dict[Kind, DegradationVerdict | str]:
    """The degradation verdict on each kind of net of which there are two depths; a text that says why where there can be none."""
    verdicts: dict[Kind, DegradationVerdict | str] = {}
    kinds: tuple[Kind, ...] = ("plain", "residual")
    for kind in kinds:
        if len({row.depth for row in rows if row.kind == kind}) > 1:
            try:
                verdicts[kind] = degradation_verdict(
                    depth_rows(rows, kind=kind, field=training_field(rows)), margin_pct=margin_pct
                )
            except (
                ValueError
            ) as error:  # two recipes at one depth, say: the table stands, the verdict does not
                verdicts[kind] = str(error)
    return verdicts


def training_field(rows: Iterable[Row]) -> str:
    """The training error by which runs are compared: with batch-norm statistics recomputed, where all of them have that."""
    recomputed = "train_recomputed_top1_error_pct"
    return (
        recomputed
        if all(row.result.get(recomputed) is not None for row in rows)
        else "train_top1_error_pct"
    )
