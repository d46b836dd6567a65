"""The run folder, format 1. Training writes it, and everything else reads it.

    recipe.json         the recipe with all defaults; its presence makes the folder a run
    environment.json    versions, device, commit, command, numerics, data fingerprint, and a
                        checksum over the recipe and itself
    metrics.jsonl       one JSON object per line, appended during training
    checkpoints/        step-STEP.pt with a digest, the newest two
    snapshots/          step-STEP.safetensors, weights at the steps that the recipe names
    model.safetensors   the trained network (the bundle), with a digest
    result.json         written last; its presence makes the run complete
    diverged.json       instead of a result, if the loss or a weight was not finite
    analysis/           NAME.json, results of `reslearn analyze`

Every file except metrics.jsonl is written to a temporary file, synced and renamed. After a crash or
on a full disk the old file is therefore still complete. Checksums bind the files to each other, so
a file that was damaged or edited is refused. ARCHITECTURE.md describes the fields.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reslearn.runs import metrics
from reslearn.runs.json_files import (
    RunError,
    as_read,
    digest,
    file_digests,
    make_folder,
    parse_object,
    write_atomically,
)
from reslearn.runs.lock import FolderLock, lock_folder

# The line that ends a checkpoint: "sha256", 64 hex digits, newline.
_CHECKPOINT_END_BYTES = 72


class DamagedCheckpointError(RunError):
    """The content of a checkpoint is not what was written."""


class RunFolder:
    """One run on disk. Only this class knows the paths and the JSON of the format.

    `create` starts a run, `open` opens an existing one. `RunFolder(path)` checks nothing. While
    `lock` is held, each write first checks that the folder is still the locked one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: FolderLock | None = None

    @classmethod
    def create(
        cls, path: Path | str, recipe: Mapping[str, Any], environment: Mapping[str, Any]
    ) -> RunFolder:
        """Start a run in an empty or missing folder.

        Raises:
            RunError: If the folder holds anything else.
        """
        folder = cls(Path(path))
        folder.start(recipe, environment)
        return folder

    def start(self, recipe: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Start a run here, as `create` does."""
        self.check_available()
        make_folder(self.path)
        self._write_environment(recipe, environment)
        # Last, since its presence makes the folder a run.
        self.write_json("recipe.json", recipe)

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Open an existing run.

        Raises:
            RunError: If the folder is not a run.
        """
        folder = cls(Path(path))
        if not folder.exists():
            raise RunError(f"{path} is not a run folder: it has no recipe.json")
        folder.read_json("recipe.json")
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
        with lock_folder(self.path) as self._lock:
            try:
                # A process that was killed while writing leaves its temporary files.
                for temporary in self.path.glob("**/.*.part"):
                    temporary.unlink(missing_ok=True)
                yield
            finally:
                self._lock = None

    # The recipe and the environment

    @property
    def recipe(self) -> dict[str, Any]:
        """Return all values of the recipe, including defaults."""
        return self.read_json("recipe.json")

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
        return self.read_json("environment.json")

    def identity(self) -> str:
        """Return a digest of recipe and environment, which does not change while the run trains.

        A checkpoint holds it, so a checkpoint of another run, or an edited recipe, is refused.

        Raises:
            RunError: If recipe.json or environment.json was changed after the run began.
        """
        recipe, environment = self.recipe, self.environment
        if environment.get("checksum") != digest(recipe, environment):
            raise RunError(
                f"{self.path}: recipe.json or environment.json was changed after the run began: "
                "put its old content back, or train again in another folder"
            )
        return digest(recipe, {**environment, "resumed_at": []})

    def record_resumption(self, step: int) -> None:
        """Add `step` to the steps in environment.json at which the run was resumed."""
        environment = self.environment
        resumed_at = [*environment.get("resumed_at", []), step]
        self._write_environment(self.recipe, {**environment, "resumed_at": resumed_at})

    def _write_environment(self, recipe: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        checksum = digest(as_read(recipe), as_read(environment))
        self.write_json("environment.json", {**environment, "checksum": checksum})

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
        """Append one line. Raise ValueError if a number is not finite, which JSON cannot hold."""
        self._check_owner()
        metrics.append_record(self.metrics_path, record)

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl, except a last line that is incomplete.

        Args:
            kind: Return only lines of this kind: "train", "validation" or "test".
        """
        return metrics.read_records(self.metrics_path, kind)

    def newest_metrics(self, kind: str) -> dict[str, Any] | None:
        """Return the newest complete line of a kind, or None, for displays that watch a run."""
        return metrics.newest_record(self.metrics_path, kind)

    def sync_metrics(self) -> tuple[int, str]:
        """Sync metrics.jsonl. Return its size in bytes and the digest of its content.

        A checkpoint stores both, so that a resumed run can drop the lines written after it.
        """
        return metrics.sync_and_measure(self.metrics_path)

    def truncate_metrics(self, num_bytes: int, sha256: str) -> None:
        """Cut metrics.jsonl to what `sync_metrics` measured; the run will write the rest again.

        Raises RunError if the file is shorter than that, or was changed.
        """
        self._check_owner()
        metrics.truncate(self.metrics_path, num_bytes, sha256)

    # Checkpoints, snapshots and the trained network

    def write_checkpoint(self, step: int, content: bytes | memoryview, *, keep: int = 2) -> Path:
        """Write checkpoints/step-STEP.pt atomically, then remove all but the newest `keep`.

        A digest follows the content. `read_checkpoint` verifies it.
        """
        path = self.path / "checkpoints" / f"step-{step:08d}.pt"
        self.write_file(path, content, _checkpoint_end(content))
        for old_path in self.checkpoints()[:-keep]:
            old_path.unlink()
        return path

    def read_checkpoint(self, path: Path) -> bytes:
        """Return the content of a checkpoint. Raise DamagedCheckpointError if it is damaged."""
        if not path.is_file():
            raise RunError(f"{path} is no regular file: remove it")
        stored = path.read_bytes()
        content = memoryview(stored)[:-_CHECKPOINT_END_BYTES]
        if stored[len(content) :] != _checkpoint_end(content):
            raise DamagedCheckpointError(f"{path} is damaged: its digest does not fit its content")
        return stored[: len(content)]

    def set_aside(self, checkpoint: Path) -> Path:
        """Rename a damaged checkpoint, so that the one before it is the newest."""
        self._check_owner()
        return checkpoint.replace(checkpoint.with_name(f"{checkpoint.name}.damaged"))

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
        self.identity()  # raises RunError if the recipe or the environment was changed
        weights = [*self.path.glob("model.safetensors"), *self.snapshots().values()]
        if weights:
            result = {**result, "sha256": file_digests(weights, self.path)}
        sealed = {**result, "checksum": self._checksum(as_read(result))}
        self.write_json("result.json", sealed)
        return sealed

    def finish_diverged(self, step: int, reason: str) -> None:
        """Write diverged.json, so that the run is not trained again."""
        self.identity()  # raises RunError if the recipe or the environment was changed
        record = {"step": step, "reason": reason}
        self.write_json("diverged.json", {**record, "checksum": self._checksum(record)})

    @property
    def result(self) -> dict[str, Any]:
        """Return the result of a complete run.

        Raises:
            RunError: If the run is not complete, or its numbers were changed after its end.
        """
        self.check_complete()
        result = self.read_json("result.json")
        if result.get("checksum") != self._checksum(result):
            raise RunError(
                f"{self.path}: recipe.json, environment.json, metrics.jsonl or result.json was "
                "changed after the run ended; train it again"
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
        record = self.read_json("diverged.json")
        if record.get("checksum") != self._checksum(record):
            raise RunError(
                f"{self.path}: recipe.json, environment.json, metrics.jsonl or diverged.json was "
                "changed after the run diverged; train it again in another folder"
            )
        return str(record["reason"])

    def _checksum(self, result: Mapping[str, Any]) -> str:
        return digest(self.recipe, self.environment, self.metrics(), result)

    # Reading and writing

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one of the JSON files of the format atomically."""
        text = json.dumps(value, indent=1, allow_nan=False) + "\n"
        self.write_file(self.path / name, text.encode())

    def write_file(self, path: Path, *parts: bytes | memoryview) -> None:
        """Write `parts` to a file of this folder atomically.

        Raises:
            FolderLostError: If this process locked the folder, and it was replaced since.
            OSError: For example if the disk is full. The file is unchanged then.
        """
        self._check_owner()
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, lambda file: file.writelines(parts))

    def _check_owner(self) -> None:
        if self._lock is not None:
            self._lock.check()

    def read_json(self, name: str) -> dict[str, Any]:
        """Read and validate one of the JSON files of the format.

        Raises:
            RunError: If the file cannot be read, or has wrong content.
        """
        path = self.path / name
        try:
            text = path.read_bytes()
        except OSError as error:
            raise RunError(f"{path}: {error.strerror}") from None
        return parse_object(path, text)


def _files_by_step(folder: Path, suffix: str) -> dict[int, Path]:
    """Return the files named step-STEP.SUFFIX, ordered by step. Other files are ignored."""
    paths = {}
    for path in folder.glob("*"):
        match = re.fullmatch(rf"step-([0-9]{{1,18}})\.{suffix}", path.name)
        if match:
            paths[int(match[1])] = path
    return dict(sorted(paths.items()))


def _checkpoint_end(content: bytes | memoryview) -> bytes:
    return f"sha256 {hashlib.sha256(content).hexdigest()}\n".encode()
