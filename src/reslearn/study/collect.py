"""Run folders to rows, and rows to a table: mean, standard deviation, interval and n for each group of runs that differ in seed alone.

Only complete runs are averaged, and only with runs of the same recipe; what was left out or kept apart is said in `notes`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reslearn import recipes
from reslearn.runs import RunError, RunFolder
from reslearn.study.statistics import Summary, summary

ERROR_FIELDS = (
    "train_top1_error_pct",
    "train_recomputed_top1_error_pct",
    "validation_top1_error_pct",
    "test_top1_error_pct",
)

# What may differ between runs that are averaged: the seed, how a recipe is called, and what leaves the outcome as it is. The model's
# name is a column of its own; its switches (a shortcut of another kind) stay part of the recipe.
APART = ("seed", "name", "model.name", "train.checkpoint_every_seconds", "evaluation.test_curve")

Kind = Literal["plain", "residual"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One complete run. `protocol` is the hash of its recipe without seed and model, to which the images belong: `recipe` holds their
    fingerprint as data.fingerprint. `depth` and `kind` are None for other families; `numerics` says in which precision it was reckoned."""

    folder: Path
    model: str
    depth: int | None
    kind: Kind | None
    seed: int
    protocol: str
    numerics: str
    recipe: dict[str, Any]
    result: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Incomplete:
    """A run that has no result: not finished, diverged, failed or unreadable. `last_step` is that of the last metrics line."""

    folder: Path
    name: str
    last_step: int | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Collection:
    """All runs found, in order of their folders."""

    rows: tuple[Row, ...]
    incomplete: tuple[Incomplete, ...]


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """Runs of one model under one recipe; `summaries` by field of result.json, without those that the runs do not have."""

    model: str
    depth: int | None
    kind: Kind | None
    protocol: str
    seeds: tuple[int, ...]
    summaries: dict[str, Summary]


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """Groups, plain before residual and by depth, and what a reader must know about them, one line each."""

    groups: tuple[RunGroup, ...]
    notes: tuple[str, ...]


def collect(*folders: Path | str) -> Collection:
    """Read every run at or below `folders`. A damaged run is listed as incomplete; ValueError for a folder that is not there."""
    rows: list[Row] = []
    incomplete: list[Incomplete] = []
    found: set[Path] = set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise ValueError(f"{folder}: there is no such folder; a run or a study is needed")
        found.update(path.parent for path in folder.rglob("recipe.json"))
        # A run that failed before it had a recipe left its log.
        found.update(path.parent for path in folder.rglob("train.log"))
    for path in sorted(found):
        try:
            run = RunFolder.open(path)
            if run.is_complete:
                rows.append(_row(run))
            else:
                incomplete.append(_unfinished(run))
        except RunError as error:
            # What was said before there was a recipe is why there is none; what a run said says nothing of what became of its files.
            said = "" if RunFolder(path).exists() else last_line(path / "train.log")
            incomplete.append(
                Incomplete(folder=path, name=path.name, last_step=None, reason=said or str(error))
            )
    return Collection(rows=tuple(rows), incomplete=tuple(incomplete))


def table(
    rows: Iterable[Row],
    *,
    fields: Sequence[str] = ERROR_FIELDS,
    incomplete: Iterable[Incomplete] = (),
) -> StudyTable:
    """One group for each model and recipe. Runs of different recipes are not averaged, copies of a run count once; the notes say so."""
    groups: dict[tuple[str, str], dict[int, Row]] = {}
    notes: list[str] = []
    for row in rows:
        seeds = groups.setdefault((row.model, row.protocol), {})
        if row.seed in seeds:
            notes.append(f"{row.folder} is left out: a copy of the run in {seeds[row.seed].folder}")
        seeds.setdefault(row.seed, row)
    first = {key: next(iter(seeds.values())) for key, seeds in groups.items()}
    notes += _differences(first)
    notes += [note for seeds in groups.values() if (note := _mixed(list(seeds.values())))]
    notes += [f"{run.folder} is not averaged: {run.reason}" for run in incomplete]
    made = [_group(list(seeds.values()), fields) for seeds in groups.values()]
    made.sort(key=lambda group: (group.kind or "~", group.depth or 0, group.model, group.protocol))
    return StudyTable(groups=tuple(made), notes=tuple(notes))


def names_of(groups: Iterable[RunGroup]) -> dict[tuple[str, str], str]:
    """A name for each group, by model and protocol: the model, and the recipe's hash where a model was run by several."""
    groups = list(groups)
    models = Counter(group.model for group in groups)
    return {
        (g.model, g.protocol): g.model if models[g.model] == 1 else f"{g.model} {g.protocol[:6]}"
        for g in groups
    }


def last_line(path: Path) -> str:
    """The last line that says anything of what the last command wrote to a log, or an empty text."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    # Bars rewrite their line with carriage returns, which splitlines takes apart.
    line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return (
        "" if line.startswith("$ ") else line
    )  # the engine's own line, which opens what a command writes


def _row(run: RunFolder) -> Row:
    recipe, result, environment = run.recipe, run.result, run.environment
    _ = (
        run.metrics()
    )  # whoever reads them later is to find them whole: a damaged run is damaged as a whole
    recipe = {
        **recipe,
        "data": {
            **recipe.get("data", {}),
            "fingerprint": environment.get("data", {}).get("fingerprint", ""),
        },
    }
    model, seed = str(recipe["model"]["name"]), int(recipe["seed"])
    depth, kind = _family(model)
    return Row(
        folder=run.path,
        model=model,
        depth=depth,
        kind=kind,
        seed=seed,
        protocol=recipes.recipe_hash(recipe, without=APART),
        numerics=numerics_of(environment),
        recipe=recipe,
        result=result,
    )


def numerics_of(environment: Mapping[str, Any]) -> str:
    """In which precision a run was reckoned, and by which instructions, as its environment.json says."""
    chosen = environment.get("numerics", {})
    return " on ".join(
        str(chosen[key]) for key in ("precision", "instruction_set") if chosen.get(key)
    )


def _mixed(rows: list[Row]) -> str:
    """A note on an average over runs that were not reckoned alike, which is an average still."""
    mixed = mixed_numerics(row.numerics for row in rows)
    return f"{rows[0].model}: averaged over {mixed}" if mixed else ""


def mixed_numerics(numerics: Iterable[str]) -> str:
    """Runs of different precision, by how they were reckoned; empty where all were reckoned alike."""
    counts = Counter(numerics)
    told = ", ".join(f"{number} {what}" for what, number in counts.items())
    return f"runs of different precision: {told}" if len(counts) > 1 else ""


def _unfinished(run: RunFolder) -> Incomplete:
    records = run.metrics()
    said = run.divergence or last_line(run.path / "train.log")
    last = int(records[-1]["step"]) if records else None
    reason = "no step recorded" if last is None else f"stopped after step {last}"
    return Incomplete(
        folder=run.path,
        name=run.path.name,
        last_step=last,
        reason=f"{reason}: {said}" if said else reason,
    )


def _family(model: str) -> tuple[int | None, Kind | None]:
    """The paper's names: plain20, resnet110."""
    match = re.fullmatch(r"(plain|resnet)(\d+)", model)
    if match is None:
        return None, None
    return int(match[2]), "plain" if match[1] == "plain" else "residual"


def _group(rows: list[Row], fields: Sequence[str]) -> RunGroup:
    rows.sort(key=lambda row: row.seed)
    values = {
        field: [float(row.result[field]) for row in rows if row.result.get(field) is not None]
        for field in fields
    }
    return RunGroup(
        model=rows[0].model,
        depth=rows[0].depth,
        kind=rows[0].kind,
        protocol=rows[0].protocol,
        seeds=tuple(row.seed for row in rows),
        summaries={field: summary(numbers) for field, numbers in values.items() if numbers},
    )


def _differences(groups: dict[tuple[str, str], Row]) -> list[str]:
    """A line for every recipe but the one that most models follow, or the first: how it differs from that."""
    counts = Counter(protocol for _, protocol in groups)
    if len(counts) < 2:
        return []
    (usual, most), *_ = counts.most_common(1)
    base = next(row for (_, protocol), row in groups.items() if protocol == usual)
    is_usual = 2 * most > len(groups)
    told = f"most follow {usual}" if is_usual else f"others are set against {usual}"
    notes = [f"{len(counts)} recipes, which are not averaged with one another; {told}"]
    for other in counts:
        if other != usual:
            of = [model for model, protocol in groups if protocol == other]
            row = next(row for (_, protocol), row in groups.items() if protocol == other)
            changed = [
                line
                for line in recipes.difference(base.recipe, row.recipe)
                if line.partition(":")[0] not in APART
            ]
            notes.append(f"recipe {other} ({', '.join(of)}): {'; '.join(changed)}")
    return notes
