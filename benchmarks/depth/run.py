"""Measure members of a generation in parallel, with one thread each.

Each finished member becomes a line of a file, so a stopped benchmark can be resumed. The `rules` of
a verdict are a hash of the source that decides it, and lines with another hash are measured again.
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
from benchmarks.depth.score import Judged
from benchmarks.generations import GENERATIONS, AnyMember, Generation

import reslearn.diagnose
from reslearn.cli.output import process_pool
from reslearn.diagnose import DiagnosisError, diagnose

MINUTES = 30.0
"""No member comes near this limit. Budgets are in steps, so verdicts are independent of the
machine."""
REFUSED = "refused"
"""Recorded in place of a verdict if the network or its data were refused."""
PRESENTATION = {
    *("advice", "answer", "code_places", "diagnosis_json", "drawing", "page", "parallel"),
    *("patch", "source_edit", "user_code", "user_data"),
}
"""Files of the room diagnose that do not decide a verdict."""
SURGERY = ("blocks", "surgery", "tracing")
"""Files of the room models that decide a verdict."""

Line = dict[str, Any]
Say = Callable[[str], None]
Limits = dict[str, int]
"""Fewer `steps` or `seeds` than the rule says, or `cores` per diagnosis."""
Work = Callable[[int, str, Limits], Line]


def measure_truths(
    generation: Generation,
    chosen: Sequence[AnyMember],
    *,
    jobs: int,
    say: Say,
    path: Path | None = None,
    **limits: int,
) -> None:
    """Measure the truth of the members that the file lacks.

    Args:
        path: The file; by default the one of the generation.
    """
    path = path or generation.truths
    measured = {line["name"] for line in read_lines(path)}
    pending = [member for member in chosen if member.name not in measured]
    lines = _finished_lines(_truth_line, generation, pending, jobs, limits)
    _write(lines, len(pending), path, say)


def measure_verdicts(
    generation: Generation,
    chosen: Sequence[AnyMember],
    *,
    jobs: int,
    say: Say,
    path: Path | None = None,
    **limits: int,
) -> None:
    """Diagnose the members that the file lacks under the current rules.

    Members without a settled truth are skipped.

    Args:
        path: The file; by default the one of the generation.
    """
    path = path or generation.verdicts
    current_rules, settled = rules(), settled_names(generation)
    old_lines = read_lines(path)
    measured = {line["name"] for line in old_lines if line["rules"] == current_rules}
    replaced = {member.name for member in chosen} - measured
    if path.is_file():
        kept_lines = [line for line in old_lines if line["name"] not in replaced]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept_lines))
    pending = [
        member for member in chosen if member.name in settled and member.name not in measured
    ]
    lines = _finished_lines(_verdict_line, generation, pending, jobs, limits)
    _write(lines, len(pending), path, say)


def judged(generation: Generation, half: str | None) -> list[Judged]:
    """Return the members of a half, or of both, that have a settled truth and a verdict."""
    names = settled_names(generation)
    lines = {line["name"]: line for line in read_lines(generation.verdicts)}
    results = []
    for member in _members_of(generation, half):
        line = lines.get(member.name)
        if line is not None and member.name in names:
            results.append(
                Judged(
                    name=member.name,
                    kind=member.kind,
                    truths=names[member.name],
                    verdict=line["verdict"],
                    seconds=line["seconds"],
                    alarms=line["alarms"],
                )
            )
    return results


def settled_names(generation: Generation) -> dict[str, tuple[str, ...]]:
    """Return the right verdicts of each member whose truth is settled."""
    names = {line["name"]: tuple(line["names"]) for line in read_lines(generation.truths)}
    if not generation.checks_construction:
        names |= {member.name: member.truths for member in generation.members() if member.truths}
    return {name: truths for name, truths in names.items() if truths}


def num_unsettled(generation: Generation, half: str | None) -> int:
    """Return how many members of a half, or of both, have an unsettled truth."""
    unsettled = {line["name"] for line in read_lines(generation.truths) if not line["names"]}
    return sum(member.name in unsettled for member in _members_of(generation, half))


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
    """Return twelve digits of the hash of the files that decide a verdict."""
    diagnose_room = Path(reslearn.diagnose.__file__).parent
    files = [file for file in diagnose_room.glob("*.py") if file.stem not in PRESENTATION]
    files += [diagnose_room.parent / "models" / f"{name}.py" for name in SURGERY]
    source = b"".join(file.read_bytes() for file in sorted(files))
    return hashlib.sha256(source + str(truth.DIAGNOSIS_STEPS).encode()).hexdigest()[:12]


def _members_of(generation: Generation, half: str | None) -> list[AnyMember]:
    return [member for member in generation.members() if half in (None, member.half)]


def _truth_line(number: int, name: str, limits: Limits) -> Line:
    generation, started = GENERATIONS[number], time.monotonic()
    measured = generation.truth_of(_member(generation, name), **limits)
    seconds = round(time.monotonic() - started, 1)
    return {"name": name, **asdict(measured), "seconds": seconds}


def _verdict_line(number: int, name: str, limits: Limits) -> Line:
    member = _member(GENERATIONS[number], name)
    steps, cores = limits.get("steps", truth.DIAGNOSIS_STEPS), limits.get("cores", 1)
    started = time.monotonic()
    line: Line = {"name": name, "cores": cores, "rules": rules()}
    try:
        problem = member.problem()
        diagnosis = diagnose(problem, minutes=MINUTES, steps=steps, jobs=cores)
    except DiagnosisError as error:
        seconds = round(time.monotonic() - started, 1)
        alarms = dict.fromkeys(rivals.NAMES, False)
        return line | {
            "verdict": REFUSED,
            "because": str(error),
            "seconds": seconds,
            "alarms": alarms,
        }
    seconds = round(time.monotonic() - started, 1)
    return line | {
        "verdict": diagnosis.verdict.name,
        "because": diagnosis.verdict.reason,
        "certain": diagnosis.verdict.certain,
        "seconds": seconds,
        "alarms": rivals.alarms(problem, steps=steps),
        "evidence": asdict(diagnosis.scores),
    }


def _write(lines: Iterator[Line], total: int, path: Path, say: Say) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for number, line in enumerate(lines, 1):
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        result = line.get("verdict") or " or ".join(line["names"]) or "unsettled"
        say(f"{number}/{total} {line['name']}: {result}")


def _finished_lines(
    work: Work,
    generation: Generation,
    pending: Sequence[AnyMember],
    jobs: int,
    limits: Limits,
) -> Iterator[Line]:
    names = [member.name for member in pending]
    if jobs == 1:
        yield from (work(generation.number, name, limits) for name in names)
        return
    with process_pool(jobs) as pool:
        try:
            tasks = [pool.submit(work, generation.number, name, limits) for name in names]
            for future in as_completed(tasks):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True, wait=False)
            raise


def _member(generation: Generation, name: str) -> AnyMember:
    return next(member for member in generation.members() if member.name == name)
