"""The run folder, format 1: the waist of the system. Training writes it, everything else reads it (ARCHITECTURE.md).

Every file but metrics.jsonl is written aside, synced and renamed, so that a crash or a full disk leaves the old one whole.
"""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from reslearn.runs.shape import problems


class RunError(ValueError):
    """A folder that is no run, is in use, or holds what we cannot read; the text names it and says what to do."""


def make_folder(path: Path) -> None:
    """The folder that results go to, with those above it; RunError where it cannot be: a file is in the way, or it may not be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        in_the_way = (
            "a file is in the way"
            if isinstance(error, FileExistsError | NotADirectoryError)
            else str(error.strerror).lower()
        )
        raise RunError(f"{path} cannot be made ({in_the_way}): choose another --out") from None


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write` on a file beside `path`, sync, and rename: `path` holds the old bytes or the new ones, never a part.

    Raises OSError (a full disk, say) with `path` untouched and nothing left beside it.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name too must survive a power cut
    finally:
        os.close(folder)


def plain(value: Any) -> Any:
    """Values as JSON has them: tuples become lists, and numbers that are not finite, which it does not know, null."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Table(dict[str, Any]):
    """A JSON object of a run, which may come from anywhere: a key that it lacks is told in one line, with the file."""

    path: Path

    def __missing__(self, key: str) -> Any:
        raise RunError(
            f"{self.path} lacks {key!r}: it was changed by hand, or is of another program"
        )


class RunFolder:
    """One run on disk. Made by `create`, opened by `open`; all paths and JSON of the format are known only here."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(
        cls, path: Path | str, recipe: Mapping[str, Any], environment: Mapping[str, Any]
    ) -> "RunFolder":
        """A new run in an empty or absent folder. RunError where the folder holds something else."""
        folder = cls(Path(path))
        folder.check_free()
        make_folder(folder.path)
        folder.write_json("environment.json", environment)
        folder.write_json("recipe.json", recipe)  # last: its presence makes the folder a run
        return folder

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """An existing run; RunError where there is none."""
        folder = cls(Path(path))
        if not folder.exists():
            raise RunError(f"{path} is no run folder: it has no recipe.json")
        folder._read_json("recipe.json")
        return folder

    def check_free(self) -> None:
        """RunError unless a run can be begun here: the folder is absent, or holds nothing but what a begin that was cut off left."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise RunError(f"{self.path} is a file: choose another --out")
        ours = (".lock", "train.log", "environment.json")
        foreign = sorted(
            entry.name
            for entry in self.path.iterdir()
            if entry.name not in ours and not entry.name.endswith(".part")
        )
        if foreign:
            raise RunError(
                f"{self.path} is not empty (it holds {foreign[0]}) and is no run: choose another --out"
            )

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "recipe.json").is_file()

    @property
    def is_complete(self) -> bool:
        """Whether the run ended: result.json is written last."""
        return (self.path / "result.json").is_file()

    @property
    def recipe(self) -> dict[str, Any]:
        """All values of the recipe, defaults filled in."""
        return self._read_json("recipe.json")

    @property
    def recipe_hash(self) -> str:
        """The name of what the recipe computes, seed included: what its weights carry too."""
        from reslearn.recipes import (
            recipe_hash,
        )  # pydantic, which not everybody who reads a run needs

        return recipe_hash(self.recipe)

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, device, commit, command, chosen numerics, data fingerprint."""
        return self._read_json("environment.json")

    def check_images(self, fingerprint: str) -> None:
        """RunError where the images that the run names, whose fingerprint is given, are not those that it was trained on any more."""
        if self.environment.get("data", {}).get("fingerprint", fingerprint) != fingerprint:
            raise RunError(
                f"{self.path} was trained on other images than {self.recipe['data']['name']} holds now: put those back"
            )

    @property
    def result(self) -> dict[str, Any]:
        """The run's results; RunError while the run is not complete, and where a number of it was changed after its end."""
        if not self.is_complete:
            raise RunError(
                f"{self.path} is not complete: reslearn train --resume --out {shlex.quote(str(self.path))}"
            )
        result = self._read_json("result.json")
        if result.get("checksum") != self._checksum(result):
            raise RunError(
                f"{self.path}: recipe.json, metrics.jsonl or result.json was changed after the run ended; train it anew"
            )
        return result

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write result.json, which ends the run, with a checksum of all that its numbers come from; returns what was written."""
        sealed = {**result, "checksum": self._checksum(result)}
        self.write_json("result.json", sealed)
        return sealed

    def _checksum(self, result: Mapping[str, Any]) -> str:
        """Over the recipe, the lines of metrics.jsonl and the result."""
        return _digest(self.recipe, self.metrics(), result)

    @property
    def divergence(self) -> str | None:
        """Why the run can never have a result, where its loss or a weight stopped being a finite number (diverged.json); else None."""
        return (
            str(self._read_json("diverged.json")["reason"])
            if (self.path / "diverged.json").is_file()
            else None
        )

    @property
    def metrics_path(self) -> Path:
        """metrics.jsonl, which may not exist yet."""
        return self.path / "metrics.jsonl"

    @property
    def bundle_path(self) -> Path:
        """model.safetensors, which exists once the run is complete (and may have been left out of a committed run)."""
        return self.path / "model.safetensors"

    def snapshot_path(self, step: int) -> Path:
        """snapshots/step-STEP.safetensors: a bundle of the network as it was after that step, where the recipe asks for it."""
        return self.path / "snapshots" / f"step-{step:08d}.safetensors"

    def snapshots(self) -> dict[int, Path]:
        """The snapshots that are there, by step."""
        return _by_step(self.path / "snapshots", "safetensors")

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, of one kind or all; a last line that was cut in the middle is left out."""
        if not self.metrics_path.exists():
            return []
        records = []
        with self.metrics_path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                record = _table(self.metrics_path, line, where=f", line {number}")
                if kind is None or record["kind"] == kind:
                    records.append(record)
        return records

    def newest_metrics(self, kind: str) -> dict[str, Any] | None:
        """The newest whole line of a kind near the end of metrics.jsonl, for whoever watches the run; None where there is none yet."""
        try:
            with self.metrics_path.open("rb") as file:
                file.seek(max(0, self.metrics_path.stat().st_size - 8192))
                lines = file.read().split(b"\n")
        except OSError:
            return None
        for line in reversed(lines[:-1]):  # what follows the last line end is still being written
            with contextlib.suppress(RunError):  # the first may be the rest of a line
                record = _table(self.metrics_path, line)
                if record["kind"] == kind:
                    return record
        return None

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """One line more. Non-finite numbers are refused: they are not JSON."""
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def metrics_size(self) -> int:
        """Bytes of metrics.jsonl so far, synced: a checkpoint holds them, so that a resumed run can cut back to what survived."""
        if not self.metrics_path.exists():
            return 0
        with self.metrics_path.open("rb") as file:
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_size

    def truncate_metrics(self, num_bytes: int) -> None:
        """Cut metrics.jsonl back to `num_bytes`: what was logged after the checkpoint will be logged again."""
        if num_bytes > self.metrics_size():
            raise RunError(
                f"{self.metrics_path} is shorter than at the last checkpoint: it was changed by hand; start anew elsewhere"
            )
        if self.metrics_path.exists():
            os.truncate(self.metrics_path, num_bytes)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one of the format's JSON files atomically."""
        text = json.dumps(value, indent=1, allow_nan=False) + "\n"
        write_atomically(self.path / name, lambda file: file.write(text.encode()))

    def analyses(self) -> dict[str, dict[str, Any]]:
        """What `reslearn analyze` left in analysis/NAME.json, by name. RunError as by `analysis`."""
        names = sorted(path.stem for path in (self.path / "analysis").glob("*.json"))
        seal = (
            self.result["checksum"] if names else ""
        )  # which reads the whole run: once, however many there are
        return {name: self._sealed(name, seal) for name in names}

    def checkpoints(self) -> list[Path]:
        """Checkpoints, oldest first."""
        return list(self.checkpoints_by_step().values())

    def checkpoints_by_step(self) -> dict[int, Path]:
        """The checkpoints that are there, by step, oldest first."""
        return _by_step(self.path / "checkpoints", "pt")

    def analysis(self, name: str) -> dict[str, Any] | None:
        """What `reslearn analyze` kept as analysis/NAME.json, None where it was not asked for. RunError where it cannot be read, and where
        it is not what was written of this very run."""
        return (
            self._sealed(name, self.result["checksum"])
            if (self.path / "analysis" / f"{name}.json").is_file()
            else None
        )

    def _sealed(self, name: str, seal: str) -> dict[str, Any]:
        record = self._read_json(f"analysis/{name}.json")
        if record.get("checksum") != _digest(seal, name, record):
            path = self.path / "analysis" / f"{name}.json"
            raise RunError(
                f"{path} was changed after it was written, or is of another run: remove it, and look into the run anew"
            )
        return record

    def write_analysis(self, name: str, record: Mapping[str, Any]) -> Path:
        """Write analysis/NAME.json atomically, with a checksum that binds it to the result of the run; returns its path."""
        (self.path / "analysis").mkdir(exist_ok=True)
        self.write_json(
            f"analysis/{name}.json",
            {**record, "checksum": _digest(self.result["checksum"], name, record)},
        )
        return self.path / "analysis" / f"{name}.json"

    def write_checkpoint(
        self, step: int, write: Callable[[IO[bytes]], object], *, keep: int = 2
    ) -> Path:
        """Write checkpoints/step-STEP.pt atomically, then remove all but the newest `keep`."""
        path = self.path / "checkpoints" / f"step-{step:08d}.pt"
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, write)
        for old in self.checkpoints()[:-keep]:
            old.unlink()
        return path

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one process; RunError where another has it. The lock ends with the process, however it ends."""
        make_folder(self.path)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"{self.path} is in use by another process: two runs cannot share a folder"
                ) from None
            for left in self.path.glob("**/.*.part"):  # by a process that was killed while it wrote
                left.unlink(missing_ok=True)
            yield

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            text = path.read_bytes()
        except OSError as error:
            raise RunError(f"{path}: {error.strerror}") from None
        return _table(path, text)


def _table(path: Path, text: bytes, *, where: str = "") -> dict[str, Any]:
    """The JSON object in `text`, which is all of `path` or the line of it that `where` names, of the shape that this file has."""

    def table(value: dict[str, Any]) -> _Table:
        named = _Table(value)
        named.path = path
        return named

    try:
        value = json.loads(text, object_hook=table)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}{where}: truncated, or no JSON ({error})") from None
    if not isinstance(value, dict):
        raise RunError(f"{path}{where}: a table is expected")
    if wrong := problems(path.name, text):
        raise RunError(f"{path}{where}: {'; '.join(wrong)}")
    return value


def _digest(*parts: Any) -> str:
    """Sixteen hex digits over JSON values, however they are spaced; in the last, a table, "checksum" does not count."""
    *others, table = parts
    numbers = {key: value for key, value in table.items() if key != "checksum"}
    return hashlib.sha256(json.dumps([*others, numbers], sort_keys=True).encode()).hexdigest()[:16]


def _by_step(folder: Path, suffix: str) -> dict[int, Path]:
    """Files of the name step-STEP.SUFFIX, in the order of their steps; others are nobody's business."""
    named = (
        (re.fullmatch(rf"step-([0-9]{{1,18}})\.{suffix}", path.name), path)
        for path in folder.glob("*")
    )
    return dict(sorted((int(match[1]), path) for match, path in named if match))
