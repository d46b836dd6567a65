"""Measure members in parallel, with one thread each.

Each finished member becomes a line of a file, so a stopped benchmark can be resumed.
`truth.jsonl` lies beside this file, because it belongs to the members. `verdicts.jsonl` lies in
results/depth, because it belongs to the current diagnosis. The `rules` of a line are a hash of its
source, and lines with another hash are measured again.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.depth import rivals, truth
from benchmarks.depth.members import Member, members
from benchmarks.depth.score import Judged

import reslearn.diagnose
from reslearn.cli.output import process_pool
from reslearn.diagnose import diagnose

TRUTHS = Path(__file__).parent / "truth.jsonl"
VERDICTS = Path(__file__).parents[2] / "results" / "depth" / "verdicts.jsonl"
MINUTES = 30.0
"""No member comes near this limit. Budgets are in steps, so verdicts are independent of the
machine."""
RULE_FILES = {
    "diagnose": (
        "diagnosis",
        "experiment",
        "plan",
        "problem",
        "scores",
        "screening",
        "signals",
        "trial",
        "variant",
        "verdict",
        "verdict_rules",
        "findings",
        "call_record",
        "data_checks",
        "first_steps",
        "output_layer",
        "signal_checks",
        "wiring",
    ),
    "models": ("blocks", "surgery", "tracing"),
}
"""The files that decide a verdict: rules, experiments and surgery."""

Line = dict[str, Any]
Say = Callable[[str], None]
Limits = dict[str, int]
"""Fewer `steps` or `seeds` than the rule says, for tests."""


def measure_truths(
    chosen: Sequence[Member], *, jobs: int, say: Say, path: Path = TRUTHS, **limits: int
) -> None:
    """Measure the truth of the members that the file lacks."""
    done = {line["name"] for line in read_lines(path)}
    pending = [member for member in chosen if member.name not in done]
    _run(_truth_line, pending, path, jobs, say, limits)


def measure_verdicts(
    chosen: Sequence[Member],
    *,
    jobs: int,
    say: Say,
    path: Path = VERDICTS,
    truths: Path = TRUTHS,
    **limits: int,
) -> None:
    """Diagnose the members that the file lacks under the current rules.

    Members whose truth was measured and is unsettled are skipped.
    """
    current_rules = rules()
    current_lines = [line for line in read_lines(path) if line["rules"] == current_rules]
    skipped = {line["name"] for line in current_lines} | _unsettled_names(truths)
    if path.is_file():
        path.write_text("".join(json.dumps(line) + "\n" for line in current_lines))
    pending = [member for member in chosen if member.name not in skipped]
    _run(_verdict_line, pending, path, jobs, say, limits)


def judged(half: str | None, *, truths: Path = TRUTHS, verdicts: Path = VERDICTS) -> list[Judged]:
    """Return the members of a half, or of both, that have a settled truth and a verdict."""
    names = {line["name"]: tuple(line["names"]) for line in read_lines(truths)}
    names |= {member.name: member.truths for member in members() if member.truths}
    lines = {line["name"]: line for line in read_lines(verdicts)}
    results = []
    for member in _members_of(half):
        line = lines.get(member.name)
        if line is not None and names.get(member.name):
            results.append(
                Judged(
                    name=member.name,
                    truths=names[member.name],
                    verdict=line["verdict"],
                    seconds=line["seconds"],
                    alarms=line["alarms"],
                )
            )
    return results


def num_unsettled(half: str | None, *, truths: Path = TRUTHS) -> int:
    """Return how many members of a half, or of both, have an unsettled truth."""
    names = _unsettled_names(truths)
    return sum(member.name in names for member in _members_of(half))


def read_lines(path: Path) -> list[Line]:
    """Return the measured lines; a last line that is incomplete is skipped."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def rules() -> str:
    """Return twelve digits of the hash of RULE_FILES."""
    root = Path(reslearn.diagnose.__file__).parents[1]
    source = b""
    for room, names in RULE_FILES.items():
        for name in names:
            source += (root / room / f"{name}.py").read_bytes()
    return hashlib.sha256(source + str(truth.DIAGNOSIS_STEPS).encode()).hexdigest()[:12]


def _members_of(half: str | None) -> list[Member]:
    return [member for member in members() if half in (None, member.half)]


def _unsettled_names(truths: Path) -> set[str]:
    return {line["name"] for line in read_lines(truths) if not line["names"]}


def _truth_line(name: str, limits: Limits) -> Line:
    return {"name": name, **asdict(truth.truth_of(_member(name), **limits))}


def _verdict_line(name: str, limits: Limits) -> Line:
    problem, steps = _member(name).problem(), limits.get("steps", truth.DIAGNOSIS_STEPS)
    started = time.monotonic()
    diagnosis = diagnose(problem, minutes=MINUTES, steps=steps)
    seconds = time.monotonic() - started
    return {
        "name": name,
        "verdict": diagnosis.verdict.name,
        "because": diagnosis.verdict.reason,
        "certain": diagnosis.verdict.certain,
        "seconds": round(seconds, 1),
        "alarms": rivals.alarms(problem, steps=steps),
        "evidence": asdict(diagnosis.scores),
        "rules": rules(),
    }


def _run(
    work: Callable[[str, Limits], Line],
    pending: Sequence[Member],
    path: Path,
    jobs: int,
    say: Say,
    limits: Limits,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [member.name for member in pending]
    for number, line in enumerate(_finished_lines(work, names, jobs, limits), 1):
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        result = line.get("verdict") or " or ".join(line["names"]) or "unsettled"
        say(f"{number}/{len(pending)} {line['name']}: {result}")


def _finished_lines(
    work: Callable[[str, Limits], Line], names: Sequence[str], jobs: int, limits: Limits
) -> Iterator[Line]:
    if jobs == 1:
        yield from (work(name, limits) for name in names)
        return
    with process_pool(jobs) as pool:
        try:
            for future in as_completed([pool.submit(work, name, limits) for name in names]):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True, wait=False)
            raise


def _member(name: str) -> Member:
    return next(member for member in members() if member.name == name)
