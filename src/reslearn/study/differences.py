"""Differences between the conditions of a study, paired by seed, with intervals and p values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from reslearn.study.collect import Row, recipe_changes
from reslearn.study.power import holm
from reslearn.study.statistics import Comparison, compare


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Difference between two conditions.

    Attributes:
        what: Which conditions are compared.
        comparison: The second condition minus the first, paired by seed.
        p: The p value, corrected for all differences of the same list (Holm).
    """

    what: str
    comparison: Comparison
    p: float | None = None


def differences(rows: Iterable[Row], *, field: str = "test_top1_error_pct") -> list[Difference]:
    """Compare the conditions of a study.

    Recipes of one model are compared with the recipe that has the fewest overrides. Residual
    networks are compared with plain networks of the same depth and recipe. Runs without `field` and
    conditions without a common seed are left out. The first of several copies of a run counts.
    """
    by_condition: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.result.get(field) is not None:
            by_condition.setdefault((row.model, row.protocol), []).append(row)
    conditions = sorted(by_condition.values(), key=lambda runs: (runs[0].depth or 0, runs[0].model))
    results: list[Difference] = []
    for what, base, variant in (*_recipe_pairs(conditions), *_family_pairs(conditions)):
        base_errors, variant_errors = _errors_by_seed(base, field), _errors_by_seed(variant, field)
        seeds = sorted(base_errors.keys() & variant_errors.keys())
        if seeds:
            comparison = compare(
                [variant_errors[seed] for seed in seeds],
                [base_errors[seed] for seed in seeds],
                paired=True,
            )
            results.append(Difference(what=what, comparison=comparison))
    corrected = holm([difference.comparison.p for difference in results])
    return [replace(difference, p=p) for difference, p in zip(results, corrected, strict=True)]


Pair = tuple[str, list[Row], list[Row]]


def _errors_by_seed(rows: Sequence[Row], field: str) -> dict[int, float]:
    return {row.seed: float(row.result[field]) for row in reversed(rows)}


def _recipe_pairs(conditions: Sequence[list[Row]]) -> Iterator[Pair]:
    """Yield each recipe of a model with the recipe that has the fewest overrides."""
    for model in dict.fromkeys(rows[0].model for rows in conditions):
        base, *variants = sorted(
            (rows for rows in conditions if rows[0].model == model),
            key=lambda rows: len(rows[0].recipe.get("overrides", ())),
        )
        for variant in variants:
            changes = ", ".join(recipe_changes(base[0], variant[0]))
            yield f"{model}: {changes}", base, variant


def _family_pairs(conditions: Sequence[list[Row]]) -> Iterator[Pair]:
    """Yield each plain network with the residual network of the same depth and recipe."""
    for plain, residual in product(conditions, conditions):
        a, b = plain[0], residual[0]
        same_recipe = a.depth == b.depth and a.protocol == b.protocol
        if (a.kind, b.kind) != ("plain", "residual") or not same_recipe:
            continue
        protocols = {rows[0].protocol for rows in conditions if rows[0].model in (a.model, b.model)}
        recipe = f", recipe {a.protocol[:6]}" if len(protocols) > 1 else ""
        yield f"{a.model} -> {b.model}{recipe}", plain, residual
