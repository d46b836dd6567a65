"""The run folder, format 1. Training writes it, and everything else reads it.

    recipe.json         the recipe with all defaults; its presence makes the folder a run
    environment.json    versions, device, commit, command, numerics, data fingerprint
    metrics.jsonl       one JSON object per line, appended during training
    checkpoints/        step-STEP.pt, the newest two
    snapshots/          step-STEP.safetensors, weights at the steps that the recipe names
    model.safetensors   the trained network (the bundle)
    result.json         written last; its presence makes the run complete
    diverged.json       instead of a result, if the loss or a weight was not finite
    analysis/           NAME.json, results of `reslearn analyze`

Every file except metrics.jsonl is written to a temporary file, synced and renamed. After a crash or
on a full disk the old file is therefore still complete. ARCHITECTURE.md describes the fields.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from reslearn.runs.json_files import RunError, make_folder, parse_object, write_atomically


class RunFolder:
    """One run on disk. Only this class knows the paths and the JSON of the format.

    `create` starts a run, `open` opens an existing one. `RunFolder(path)` checks nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(
        cls, path: Path | str, recipe: Mapping[str, Any], environment: Mapping[str, Any]
    ) -> RunFolder:
        """Start a run in an empty or missing folder.

        Raises:
            RunError: If the folder holds anything else.
        """
        folder = cls(Path(path))
        folder.check_available()
        make_folder(folder.path)
        folder.write_json("environment.json", environment)
        # Last, since its presence makes the folder a run.
        folder.write_json("recipe.json", recipe)
        return folder

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Open an existing run.

        Raises:
            RunError: If the folder is not a run.
        """
        folder = cls(Path(path))
        if not folder.exists():
            raise RunError(f"{path} is not a run folder: it has no recipe.json")
        folder._read_json("recipe.json")
        return folder

    def exists(self) -> bool:
        """Return whether a run was started in this folder."""
        return (self.path / "recipe.json").is_file()

    @property
    def is_complete(self) -> bool:
        """Return whether the run has its result."""
        return (self.path / "result.json").is_file()

    def check_available(self) -> None:
        """Raise RunError unless a run can start here.

        The folder may be missing, empty, or hold the remains of a start that was interrupted.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise RunError(f"{self.path} is a file: choose another --out")
        for entry in sorted(self.path.iterdir()):
            is_ours = entry.name in (".lock", "train.log", "environment.json")
            if not is_ours and not entry.name.endswith(".part"):
                raise RunError(
                    f"{self.path} is not empty (it holds {entry.name}) and is not a run: "
                    "choose another --out"
                )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process. The lock ends with the process, even if it is killed.

        Raises:
            RunError: If another process holds the folder.
        """
        make_folder(self.path)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    f"{self.path} is in use by another process: two runs cannot share a folder"
                ) from None
            # A process that was killed while writing leaves its temporary files.
            for temporary in self.path.glob("**/.*.part"):
                temporary.unlink(missing_ok=True)
            yield

    # The recipe and the environment

    @property
    def recipe(self) -> dict[str, Any]:
        """Return all values of the recipe, including defaults."""
        return self._read_json("recipe.json")

    @property
    def recipe_hash(self) -> str:
        """Return the hash of everything that the recipe computes, seed included.

        The weights of the run carry the same hash.
        """
        # pydantic is slow to import, and most readers of a run do not need it.
        from reslearn.recipes import recipe_hash

        return recipe_hash(self.recipe)

    @property
    def environment(self) -> dict[str, Any]:
        """Return versions, device, commit, command, chosen numerics and data fingerprint."""
        return self._read_json("environment.json")

    def check_images(self, fingerprint: str) -> None:
        """Raise RunError unless the run was trained on the images with this fingerprint."""
        if self.environment.get("data", {}).get("fingerprint", fingerprint) != fingerprint:
            raise RunError(
                f"{self.path} was trained on other images than {self.recipe['data']['name']} "
                "holds now: put those back"
            )

    # Metrics during training

    @property
    def metrics_path(self) -> Path:
        """Return the path of metrics.jsonl, which may not exist yet."""
        return self.path / "metrics.jsonl"

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl.

        Raises:
            ValueError: If a number is not finite, since JSON has no such numbers.
        """
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl, except a last line that is incomplete.

        Args:
            kind: Return only lines of this kind: "train", "validation" or "test".
        """
        if not self.metrics_path.exists():
            return []
        records = []
        with self.metrics_path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                record = parse_object(self.metrics_path, line, location=f", line {number}")
                if kind is None or record["kind"] == kind:
                    records.append(record)
        return records

    def newest_metrics(self, kind: str) -> dict[str, Any] | None:
        """Return the newest complete line of a kind, for displays that watch a run.

        Only the end of the file is read. Returns None if it has no such line yet.
        """
        try:
            with self.metrics_path.open("rb") as file:
                file.seek(max(0, self.metrics_path.stat().st_size - 8192))
                lines = file.read().split(b"\n")
        except OSError:
            return None
        complete_lines = lines[:-1]
        for line in reversed(complete_lines):
            # The first line may be the end of a longer one.
            with contextlib.suppress(RunError):
                record = parse_object(self.metrics_path, line)
                if record["kind"] == kind:
                    return record
        return None

    def metrics_size(self) -> int:
        """Sync metrics.jsonl and return its size in bytes.

        A checkpoint stores the size, so that a resumed run can drop the lines written after it.
        """
        if not self.metrics_path.exists():
            return 0
        with self.metrics_path.open("rb") as file:
            os.fsync(file.fileno())
            return os.fstat(file.fileno()).st_size

    def truncate_metrics(self, num_bytes: int) -> None:
        """Cut metrics.jsonl to the size at a checkpoint; the run will write the rest again.

        Raises:
            RunError: If the file is shorter than that.
        """
        if num_bytes > self.metrics_size():
            raise RunError(
                f"{self.metrics_path} is shorter than at the last checkpoint: "
                "it was changed by hand; train again in another folder"
            )
        if self.metrics_path.exists():
            os.truncate(self.metrics_path, num_bytes)

    # Checkpoints, snapshots and the trained network

    def write_checkpoint(
        self, step: int, write: Callable[[IO[bytes]], object], *, keep: int = 2
    ) -> Path:
        """Write checkpoints/step-STEP.pt atomically, then remove all but the newest `keep`."""
        path = self.path / "checkpoints" / f"step-{step:08d}.pt"
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, write)
        for old_path in self.checkpoints()[:-keep]:
            old_path.unlink()
        return path

    def checkpoints(self) -> list[Path]:
        """Return the paths of all checkpoints, oldest first."""
        return list(self.checkpoints_by_step().values())

    def checkpoints_by_step(self) -> dict[int, Path]:
        """Return the checkpoints by their step, oldest first."""
        return _files_by_step(self.path / "checkpoints", "pt")

    def snapshot_path(self, step: int) -> Path:
        """Return where the network after `step` is stored if the recipe asks for a snapshot."""
        return self.path / "snapshots" / f"step-{step:08d}.safetensors"

    def snapshots(self) -> dict[int, Path]:
        """Return the existing snapshots by their step."""
        return _files_by_step(self.path / "snapshots", "safetensors")

    @property
    def bundle_path(self) -> Path:
        """Return the path of model.safetensors. Committed runs may lack the file."""
        return self.path / "model.safetensors"

    # The end of the run

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Complete the run: seal the result and write result.json.

        To seal means to add a checksum over the result and all files that it rests on. A later
        change of one of them is then noticed.

        Returns:
            The written result, including the checksum.
        """
        sealed = {**result, "checksum": self._checksum(result)}
        self.write_json("result.json", sealed)
        return sealed

    @property
    def result(self) -> dict[str, Any]:
        """Return the result of a complete run.

        Raises:
            RunError: If the run is not complete, or its numbers were changed after its end.
        """
        self.check_complete()
        result = self._read_json("result.json")
        if result.get("checksum") != self._checksum(result):
            raise RunError(
                f"{self.path}: recipe.json, metrics.jsonl or result.json was changed after the "
                "run ended; train it again"
            )
        return result

    def check_complete(self) -> None:
        """Raise RunError, which says why and what to do, unless the run has its result."""
        if self.is_complete:
            return
        if (reason := self.divergence) is not None:
            raise RunError(
                f"{self.path} diverged and has no result: {reason}; train again in another --out"
            )
        raise RunError(
            f"{self.path} is not complete: "
            f"continue with: reslearn train --resume --out {shlex.quote(str(self.path))}"
        )

    @property
    def divergence(self) -> str | None:
        """Return why the run diverged (its loss or a weight was not finite), or None."""
        if not (self.path / "diverged.json").is_file():
            return None
        return str(self._read_json("diverged.json")["reason"])

    def _checksum(self, result: Mapping[str, Any]) -> str:
        return _digest(self.recipe, self.metrics(), result)

    # Analyses

    def write_analysis(self, name: str, record: Mapping[str, Any]) -> Path:
        """Write analysis/NAME.json with a checksum that binds it to the result of this run.

        Returns:
            The path of the file.
        """
        path = self._analysis_path(name)
        path.parent.mkdir(exist_ok=True)
        checksum = _digest(self.result["checksum"], name, record)
        self.write_json(f"analysis/{name}.json", {**record, "checksum": checksum})
        return path

    def analysis(self, name: str) -> dict[str, Any] | None:
        """Return the content of analysis/NAME.json, or None if it does not exist.

        Raises:
            RunError: If the file cannot be read, was changed, or belongs to another run.
        """
        if not self._analysis_path(name).is_file():
            return None
        return self._read_analysis(name, self.result["checksum"])

    def analyses(self) -> dict[str, dict[str, Any]]:
        """Return the content of all analyses by name.

        Raises:
            RunError: As for `analysis`.
        """
        names = sorted(path.stem for path in (self.path / "analysis").glob("*.json"))
        # The result reads the whole run, so it is read only once.
        checksum = self.result["checksum"] if names else ""
        return {name: self._read_analysis(name, checksum) for name in names}

    def _analysis_path(self, name: str) -> Path:
        return self.path / "analysis" / f"{name}.json"

    def _read_analysis(self, name: str, run_checksum: str) -> dict[str, Any]:
        record = self._read_json(f"analysis/{name}.json")
        if record.get("checksum") != _digest(run_checksum, name, record):
            raise RunError(
                f"{self._analysis_path(name)} was changed after it was written, or is of another "
                "run: remove it, and analyze the run again"
            )
        return record

    # JSON files

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one of the JSON files of the format atomically."""
        text = json.dumps(value, indent=1, allow_nan=False) + "\n"
        write_atomically(self.path / name, lambda file: file.write(text.encode()))

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            text = path.read_bytes()
        except OSError as error:
            raise RunError(f"{path}: {error.strerror}") from None
        return parse_object(path, text)


def _digest(*parts: Any) -> str:
    """Return 16 hex digits over JSON values, independent of their spacing.

    The last part is an object whose "checksum" is ignored.
    """
    *first_parts, last_part = parts
    fields = {key: value for key, value in last_part.items() if key != "checksum"}
    text = json.dumps([*first_parts, fields], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _files_by_step(folder: Path, suffix: str) -> dict[int, Path]:
    """Return the files named step-STEP.SUFFIX, ordered by step. Other files are ignored."""
    paths = {}
    for path in folder.glob("*"):
        match = re.fullmatch(rf"step-([0-9]{{1,18}})\.{suffix}", path.name)
        if match:
            paths[int(match[1])] = path
    return dict(sorted(paths.items()))
