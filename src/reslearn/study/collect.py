"""Collect run folders as rows, and rows as a table with one group per model and recipe.

Only complete runs are averaged, and only with runs of the same recipe. The `notes` of a table say
which runs were left out or kept in separate groups.
"""

from __future__ import annotations

import math
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

# Keys that may differ between runs of one protocol: the seed, the name of the recipe, and keys that
# do not change the result. The name of the model identifies a group instead. Switches of the model,
# such as its shortcut, belong to the protocol.
APART = ("seed", "name", "model.name", "train.checkpoint_every_seconds", "evaluation.test_curve")

Kind = Literal["plain", "residual"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One complete run.

    Attributes:
        folder: Its run folder.
        model: Name of the model.
        depth: Number of layers. None for other families than plain and residual networks.
        kind: "plain" or "residual". None for other families.
        seed: Its seed.
        protocol: Hash of the recipe without seed and model, but with the fingerprint of the images.
        numerics: Precision and instruction set of the computation.
        recipe: The recipe, with the fingerprint of the images as data.fingerprint.
        result: The content of result.json.
    """

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
    """A run without a result: not finished, diverged, failed or unreadable.

    Attributes:
        folder: Its run folder.
        name: Name of the folder.
        last_step: Step of the last line of metrics.jsonl. None if there is no line.
        reason: The known cause.
        diverged: A diverged run as a row with an empty result. None for other runs.
    """

    folder: Path
    name: str
    last_step: int | None
    reason: str
    diverged: Row | None = None


@dataclass(frozen=True, kw_only=True)
class Collection:
    """All runs below some folders, in the order of their paths."""

    rows: tuple[Row, ...]
    incomplete: tuple[Incomplete, ...]

    @property
    def diverged(self) -> tuple[Row, ...]:
        """The diverged runs, as rows with an empty result."""
        return tuple(run.diverged for run in self.incomplete if run.diverged is not None)


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """Runs of one model and one recipe.

    Attributes:
        model: Name of the model.
        depth: Number of layers, see `Row`.
        kind: "plain" or "residual", see `Row`.
        protocol: Hash of the recipe, see `Row`.
        seeds: Seeds of the complete runs.
        summaries: Means by field of result.json, for the fields that the runs have.
        num_diverged: Number of further runs, which diverged.
    """

    model: str
    depth: int | None
    kind: Kind | None
    protocol: str
    seeds: tuple[int, ...]
    summaries: dict[str, Summary]
    num_diverged: int = 0


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """Groups of runs, with notes.

    Attributes:
        groups: Plain networks first, then residual networks, each by depth.
        notes: Runs that were left out, and how groups differ; one line each.
        all_diverged: Models without a complete run, and how many runs of each diverged.
    """

    groups: tuple[RunGroup, ...]
    notes: tuple[str, ...]
    all_diverged: tuple[tuple[str, int], ...] = ()


def collect(*folders: Path | str) -> Collection:
    """Read all runs in `folders` and their subfolders. A damaged run is listed as incomplete.

    Raises:
        ValueError: If a folder does not exist.
    """
    rows: list[Row] = []
    incomplete: list[Incomplete] = []
    for path in sorted(_run_paths(map(Path, folders))):
        try:
            run = RunFolder.open(path)
            if run.is_complete:
                rows.append(_row(run, run.result))
            else:
                incomplete.append(_unfinished(run))
        except RunError as error:
            # Without a recipe, the log says why there is none. With a recipe, the log does not know
            # why its files are damaged.
            log = "" if RunFolder(path).exists() else last_line(path / "train.log")
            incomplete.append(
                Incomplete(folder=path, name=path.name, last_step=None, reason=log or str(error))
            )
    return Collection(rows=tuple(rows), incomplete=tuple(incomplete))


def table(
    rows: Iterable[Row],
    *,
    fields: Sequence[str] = ERROR_FIELDS,
    incomplete: Iterable[Incomplete] = (),
) -> StudyTable:
    """Average runs over seeds, in one group for each model and recipe.

    Runs of different recipes are not averaged, and copies of a run count once. The notes say so.

    Args:
        rows: Complete runs.
        fields: Fields of result.json to average.
        incomplete: Runs to mention in the notes. Diverged ones are also counted in their group.
    """
    incomplete = list(incomplete)
    num_diverged = Counter(
        (run.diverged.model, run.diverged.protocol) for run in incomplete if run.diverged
    )
    by_group: dict[tuple[str, str], dict[int, Row]] = {}
    notes: list[str] = []
    for row in rows:
        by_seed = by_group.setdefault((row.model, row.protocol), {})
        if row.seed in by_seed:
            original = by_seed[row.seed].folder
            notes.append(f"{row.folder} is left out: a copy of the run in {original}")
        by_seed.setdefault(row.seed, row)
    runs = [list(by_seed.values()) for by_seed in by_group.values()]
    notes += _recipe_notes([group_runs[0] for group_runs in runs])
    for group_runs in runs:
        if mixed := mixed_numerics(row.numerics for row in group_runs):
            notes.append(f"{group_runs[0].model}: averaged over {mixed}")
    notes += [f"{run.folder} is not averaged: {run.reason}" for run in incomplete]
    groups = [
        _group(group_runs, fields, num_diverged[key])
        for key, group_runs in zip(by_group, runs, strict=True)
    ]
    groups.sort(
        key=lambda group: (group.kind or "~", group.depth or 0, group.model, group.protocol)
    )
    all_diverged = [
        (model, number)
        for (model, protocol), number in sorted(num_diverged.items())
        if (model, protocol) not in by_group
    ]
    return StudyTable(groups=tuple(groups), notes=tuple(notes), all_diverged=tuple(all_diverged))


def names_of(groups: Iterable[RunGroup]) -> dict[tuple[str, str], str]:
    """Return a name for each (model, protocol).

    The name is the model, followed by the hash of the recipe if the model has several recipes.
    """
    groups = list(groups)
    models = Counter(group.model for group in groups)
    names: dict[tuple[str, str], str] = {}
    for group in groups:
        suffix = f" {group.protocol[:6]}" if models[group.model] > 1 else ""
        names[group.model, group.protocol] = group.model + suffix
    return names


def numerics_of(environment: Mapping[str, Any]) -> str:
    """Return the precision and the instruction set of a run, from its environment.json."""
    numerics = environment.get("numerics", {})
    keys = ("precision", "instruction_set")
    return " on ".join(str(numerics[key]) for key in keys if numerics.get(key))


def mixed_numerics(numerics: Iterable[str]) -> str:
    """Describe runs of different precision; return "" if all runs have the same."""
    counts = Counter(numerics)
    if len(counts) < 2:
        return ""
    return "runs of different precision: " + ", ".join(
        f"{number} {precision}" for precision, number in counts.items()
    )


def recipe_changes(base: Row, variant: Row) -> list[str]:
    """Return the differences of two recipes, without the keys in `APART`."""
    differences = recipes.difference(base.recipe, variant.recipe)
    return [line for line in differences if line.partition(":")[0] not in APART]


def last_line(path: Path) -> str:
    """Return the last line of a log that is not empty, or "" if the last command wrote nothing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    # Progress bars rewrite their line with carriage returns, at which splitlines splits.
    line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    # "$ " begins the line that the engine writes before the output of a command.
    return "" if line.startswith("$ ") else line


def _run_paths(folders: Iterable[Path]) -> set[Path]:
    paths: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(
                f"{folder}: there is no such folder; pass the folder of a run or of a study"
            )
        paths.update(path.parent for path in folder.rglob("recipe.json"))
        # A run that failed before it had a recipe left its log.
        paths.update(path.parent for path in folder.rglob("train.log"))
    return paths


def _row(run: RunFolder, result: dict[str, Any]) -> Row:
    recipe = _recipe_with_fingerprint(run)
    model = str(recipe["model"]["name"])
    depth, kind = _family(model)
    return Row(
        folder=run.path,
        model=model,
        depth=depth,
        kind=kind,
        seed=int(recipe["seed"]),
        protocol=recipes.recipe_hash(recipe, without=APART),
        numerics=numerics_of(run.environment),
        recipe=recipe,
        result=result,
    )


def _recipe_with_fingerprint(run: RunFolder) -> dict[str, Any]:
    """Return the recipe of a run with the fingerprint of its images as data.fingerprint."""
    recipe = run.recipe
    fingerprint = run.environment.get("data", {}).get("fingerprint", "")
    return {**recipe, "data": {**recipe.get("data", {}), "fingerprint": fingerprint}}


def _unfinished(run: RunFolder) -> Incomplete:
    records, divergence = run.metrics(), run.divergence
    last_step = int(records[-1]["step"]) if records else None
    if divergence is not None:
        return Incomplete(
            folder=run.path,
            name=run.path.name,
            last_step=last_step,
            reason=f"diverged: {divergence}",
            diverged=_row(run, {}),
        )
    cause = last_line(run.path / "train.log")
    reason = "no step recorded" if last_step is None else f"stopped after step {last_step}"
    return Incomplete(
        folder=run.path,
        name=run.path.name,
        last_step=last_step,
        reason=f"{reason}: {cause}" if cause else reason,
    )


def _family(model: str) -> tuple[int | None, Kind | None]:
    """Return depth and kind of the paper's names, such as plain20 and resnet110."""
    match = re.fullmatch(r"(plain|resnet)(\d+)", model)
    if match is None:
        return None, None
    return int(match[2]), "plain" if match[1] == "plain" else "residual"


def _group(rows: list[Row], fields: Sequence[str], num_diverged: int) -> RunGroup:
    rows.sort(key=lambda row: row.seed)
    summaries: dict[str, Summary] = {}
    for field in fields:
        values = [float(row.result[field]) for row in rows if row.result.get(field) is not None]
        if values:
            summaries[field] = summary([*values, *[math.nan] * num_diverged])
    return RunGroup(
        model=rows[0].model,
        depth=rows[0].depth,
        kind=rows[0].kind,
        protocol=rows[0].protocol,
        seeds=tuple(row.seed for row in rows),
        summaries=summaries,
        num_diverged=num_diverged,
    )


def _recipe_notes(rows: Sequence[Row]) -> list[str]:
    """Describe each recipe by its differences from the most frequent one. One row per group."""
    counts = Counter(row.protocol for row in rows)
    if len(counts) < 2:
        return []
    (usual, num_usual), *_ = counts.most_common(1)
    base = next(row for row in rows if row.protocol == usual)
    is_majority = 2 * num_usual > len(rows)
    relation = f"most follow {usual}" if is_majority else f"the others are compared with {usual}"
    notes = [f"{len(counts)} recipes, which are not averaged with one another; {relation}"]
    for protocol in counts:
        if protocol != usual:
            variants = [row for row in rows if row.protocol == protocol]
            models = ", ".join(row.model for row in variants)
            changes = "; ".join(recipe_changes(base, variants[0]))
            notes.append(f"recipe {protocol} ({models}): {changes}")
    return notes
