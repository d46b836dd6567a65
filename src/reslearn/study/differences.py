"""Conditions of a study against one another: by how much an error moves, seed by seed, with intervals and corrected p values."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from reslearn import recipes
from reslearn.study.collect import APART, Row
from reslearn.study.power import holm
from reslearn.study.statistics import Comparison, compare


@dataclass(frozen=True, kw_only=True)
class Difference:
    """`comparison`: the second condition minus the first, paired by seed. `p`: corrected by Holm for all that stand beside it."""

    what: str
    comparison: Comparison
    p: float | None = None


def differences(rows: Iterable[Row], *, field: str = "test_top1_error_pct") -> list[Difference]:
    """Recipes of one model against the one with the fewest settings of its own; residual against plain nets of one depth and recipe.

    Runs that have no `field`, and conditions that share no seed, are not compared; of copies of a run the first counts.
    """
    conditions: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.result.get(field) is not None:
            conditions.setdefault((row.model, row.protocol), []).append(row)
    found = []
    for what, base, other in _pairs(
        sorted(conditions.values(), key=lambda rows: (rows[0].depth or 0, rows[0].model))
    ):
        a, b = (
            {row.seed: float(row.result[field]) for row in reversed(one)} for one in (other, base)
        )
        seeds = sorted(a.keys() & b.keys())
        if seeds:
            found.append(
                Difference(
                    what=what,
                    comparison=compare(
                        [a[seed] for seed in seeds], [b[seed] for seed in seeds], paired=True
                    ),
                )
            )
    corrected = holm([one.comparison.p for one in found])
    return [replace(one, p=p) for one, p in zip(found, corrected, strict=True)]


def _pairs(conditions: Sequence[list[Row]]) -> Iterator[tuple[str, list[Row], list[Row]]]:
    for model in dict.fromkeys(rows[0].model for rows in conditions):
        # What a user varies stands in the overrides; the plainest condition is what the others are measured against.
        own = sorted(
            (rows for rows in conditions if rows[0].model == model),
            key=lambda rows: len(rows[0].recipe.get("overrides", ())),
        )
        for other in own[1:]:
            yield f"{model}: {_changes(own[0][0], other[0])}", own[0], other
    for plain in conditions:
        for residual in conditions:
            a, b = plain[0], residual[0]
            if (
                (a.kind, b.kind) == ("plain", "residual")
                and a.depth == b.depth
                and a.protocol == b.protocol
            ):
                several = (
                    len(
                        {
                            one[0].protocol
                            for one in conditions
                            if one[0].model in (a.model, b.model)
                        }
                    )
                    > 1
                )
                yield (
                    f"{a.model} -> {b.model}" + (f", recipe {a.protocol[:6]}" if several else ""),
                    plain,
                    residual,
                )


def _changes(base: Row, other: Row) -> str:
    changed = [
        line
        for line in recipes.difference(base.recipe, other.recipe)
        if line.partition(":")[0] not in APART
    ]
    return ", ".join(changed)
