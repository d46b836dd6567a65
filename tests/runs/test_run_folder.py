"""The run folder: atomic writes, truncated metrics, locks, and foreign files that stay."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import ANY

import pytest

from reslearn.runs import (
    RunError,
    RunFolder,
    make_folder,
    read_analyses,
    read_analysis,
    write_analysis,
    write_atomically,
)

# Writes files of one repeated letter, a and b in turn, until it is killed.
WRITER = """
import itertools, sys
from pathlib import Path
from reslearn.runs import write_atomically
for letter in itertools.cycle("ab"):
    write_atomically(
        Path(sys.argv[1]), lambda file: [file.write(letter.encode() * 4096) for _ in range(200)]
    )
"""
HOLDER = "import sys, time; from reslearn.runs import RunFolder; from pathlib import Path\n"
HOLDER += "with RunFolder(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a real file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("this process may not mount a file system")
    yield disk
    subprocess.run(["umount", disk], check=True)


def make_run(path: Path) -> RunFolder:
    return RunFolder.create(path, {"name": "example", "seed": 0}, {"format": 1})


def test_a_run_is_created_and_opened(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "deep" / "run")
    opened = RunFolder.open(str(folder.path))
    assert (opened.recipe, opened.environment, opened.metrics(), opened.is_complete) == (
        {"name": "example", "seed": 0},
        {"format": 1, "checksum": ANY},
        [],
        False,
    )
    with pytest.raises(
        RunError, match="is not complete: continue with: reslearn train --resume --out"
    ):
        _ = opened.result
    result = opened.finish({"steps": 3})
    assert opened.is_complete
    assert opened.result == result == {"steps": 3, "checksum": result["checksum"]}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("recipe.json", '"seed": 0', '"seed": 1'),
        ("metrics.jsonl", '"loss": 2.0', '"loss": 1.0'),
        ("result.json", "38.06", "1.0"),
    ],
)
def test_a_number_changed_after_the_end_is_refused(
    tmp_path: Path, file: str, old: str, new: str
) -> None:
    run = make_run(tmp_path / "run")
    run.append_metrics({"kind": "train", "step": 1, "epoch": 1.0, "loss": 2.0})
    run.finish({"test_top1_error_pct": 38.06})
    path = run.path / file
    path.write_text(path.read_text().replace(" ", "  "))  # spacing does not count
    assert run.result["test_top1_error_pct"] == 38.06
    path.write_text(path.read_text().replace(old.replace(" ", "  "), new.replace(" ", "  ")))
    with pytest.raises(RunError, match="was changed after the run ended; train it again"):
        _ = run.result


def test_a_result_without_its_checksum_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.finish({"test_top1_error_pct": 38.06})
    run.write_json("result.json", {"test_top1_error_pct": 1.0})
    with pytest.raises(RunError, match="was changed after the run ended"):
        _ = run.result


def test_an_analysis_that_was_changed_or_is_of_another_run_is_refused(tmp_path: Path) -> None:
    run, other = make_run(tmp_path / "run"), make_run(tmp_path / "other")
    run.finish({"test_top1_error_pct": 38.06})
    other.finish({"test_top1_error_pct": 38.07})
    path = write_analysis(run, "responses", {"images": 50})
    assert read_analysis(run, "probes") is None
    assert read_analysis(run, "responses") == json.loads(path.read_text())
    assert read_analyses(run) == {"responses": json.loads(path.read_text())}
    original = path.read_text()
    for target, text in (
        (path, original.replace("50", "51")),
        (path, '{"images": 50}'),
        (run.path / "analysis" / "lesion.json", original),
        (other.path / "analysis" / "responses.json", original),
    ):
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
        with pytest.raises(
            RunError, match=f"{target} was changed after it was written, or is of another run"
        ):
            read_analyses(RunFolder.open(target.parent.parent))
        target.unlink()


def test_the_suggested_command_quotes_the_path(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"--out '.*/my run'$"):
        _ = make_run(tmp_path / "my run").result


def test_foreign_folders_are_refused_and_unchanged(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(
        RunError,
        match=r"is not empty \(it holds thesis\.tex\) and is not a run: choose another --out",
    ):
        make_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RunError, match="is a file"):
        make_run(tmp_path / "thesis.tex")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "thesis.tex"):
        with pytest.raises(RunError, match="is not a run folder"):
            RunFolder.open(path)


def test_a_run_killed_while_it_started_can_start_again(tmp_path: Path) -> None:
    """The process was killed before it wrote recipe.json, which comes last."""
    folder = make_run(tmp_path)
    (tmp_path / "recipe.json").unlink()
    (tmp_path / ".recipe.json.123.part").write_text("{")
    (tmp_path / "train.log").write_text("of a study\n")
    with folder.lock():
        assert make_run(tmp_path).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        "environment.json",
        "recipe.json",
        "train.log",
    ]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xff", b"null"])
def test_damaged_json_is_one_line_with_its_file(tmp_path: Path, content: bytes) -> None:
    folder = make_run(tmp_path)
    (tmp_path / "recipe.json").write_bytes(content)
    with pytest.raises(RunError, match=r"recipe\.json: ") as caught:
        RunFolder.open(folder.path)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named_with_its_file(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (tmp_path / "recipe.json").write_text('{"data": {}}')
    for read in (lambda: folder.recipe["model"], lambda: folder.recipe["data"]["name"]):
        with pytest.raises(RunError, match=r"recipe\.json lacks '(model|name)'"):
            read()
    assert folder.recipe == {"data": {}} and folder.recipe.get("model") is None
    (tmp_path / "environment.json").unlink()
    with pytest.raises(RunError, match=r"environment\.json: No such file or directory$"):
        _ = folder.environment


def test_metrics_are_truncated(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    assert folder.sync_metrics()[0] == 0
    lines = [{"kind": "train", "step": step, "epoch": step / 2} for step in (1, 2)]
    for line in lines:
        folder.append_metrics(line)
    size, sha256 = folder.sync_metrics()
    folder.append_metrics({"kind": "test", "step": 2, "epoch": 1.0})
    with folder.metrics_path.open("a") as file:
        file.write('{"kind": "tra')  # the process was killed here
    assert [record["step"] for record in folder.metrics("train")] == [1, 2]
    assert len(folder.metrics()) == 3
    folder.truncate_metrics(size, sha256)
    assert folder.metrics() == lines
    with pytest.raises(RunError, match="shorter than at the last checkpoint"):
        folder.truncate_metrics(size + 1, sha256)
    folder.metrics_path.write_text(folder.metrics_path.read_text().replace("0.5", "0.6"))
    with pytest.raises(RunError, match="or was changed since"):
        folder.truncate_metrics(size, sha256)
    assert len(folder.metrics()) == 2


def test_newest_metrics_ignores_the_line_being_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.newest_metrics("train") is None
    line = '{"kind": "%s", "step": %d, "epoch": 1}'
    lines = [line % ("train", 1)] * 1000 + [
        line % ("train", 2),
        line % ("validation", 2),
        '{"kind": "train", "step": []}',
        '{"kind": "tr',
    ]
    folder.metrics_path.write_text("\n".join(lines))
    newest = folder.newest_metrics("train")
    assert newest is not None and newest["step"] == 2
    folder.metrics_path.write_text('{"kind": "train", "st')
    assert folder.newest_metrics("train") is None


@pytest.mark.parametrize("line", [b"{oops}\n", b"3\n", b"\xff\n"])
def test_damaged_metrics_are_named_with_their_line(tmp_path: Path, line: bytes) -> None:
    folder = make_run(tmp_path)
    folder.append_metrics({"kind": "train", "step": 1, "epoch": 1})
    with folder.metrics_path.open("ab") as file:
        file.write(line)
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2: "):
        folder.metrics()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    folder = make_run(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        folder.append_metrics({"loss": value})
    with pytest.raises(ValueError, match="JSON"):
        folder.write_json("result.json", {"loss": value})
    assert (folder.metrics(), folder.is_complete) == ([], False)


def test_only_the_newest_two_checkpoints_stay(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    for step in (9, 10, 123_456):
        folder.write_checkpoint(step, b"weights")
    assert [path.name for path in folder.checkpoints()] == ["step-00000010.pt", "step-00123456.pt"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file: object) -> None:
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(small_disk: Path) -> None:
    folder = make_run(small_disk / "run")
    first = folder.write_checkpoint(1, b"1" * 25_000)
    with pytest.raises(OSError, match="No space left on device"):
        folder.write_checkpoint(2, b"2" * 30_000)
    assert folder.checkpoints() == [first]
    assert folder.read_checkpoint(first) == b"1" * 25_000
    with pytest.raises(OSError, match="No space left on device"):
        folder.write_json("recipe.json", {"long": "x" * 60_000})
    assert folder.recipe == {"name": "example", "seed": 0}
    assert not list(folder.path.glob("**/*.part"))


def test_a_process_killed_while_it_writes_leaves_a_complete_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for delay in (0.0, 0.013, 0.037):
        process = subprocess.Popen([sys.executable, "-c", WRITER, path])
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = path.read_bytes()
        assert content in (b"a" * 819_200, b"b" * 819_200)
        path.unlink()


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(RunError, match="in use by another process"), folder.lock():
        pass
    process.kill()  # it cannot clean up, but its lock ends with it
    process.wait()
    process.stdout.close()
    partial = tmp_path / "checkpoints" / f".step-00000001.pt.{process.pid}.part"
    partial.parent.mkdir()
    partial.write_bytes(b"half")
    with folder.lock():
        assert not partial.exists()
    with folder.lock():
        pass


def test_the_lock_is_a_regular_file(tmp_path: Path) -> None:
    """It neither follows a link nor empties a file, and a pipe does not block it."""
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("done")
    for name, obstruct in (
        ("link", lambda lock: lock.symlink_to(thesis)),
        ("dangling", lambda lock: lock.symlink_to(tmp_path / "absent")),
        ("folder", lambda lock: lock.mkdir()),
        ("pipe", os.mkfifo),
    ):
        (tmp_path / name).mkdir()
        obstruct(tmp_path / name / ".lock")
        with (
            pytest.raises(RunError, match=r"\.lock is no regular file: remove it"),
            RunFolder(tmp_path / name).lock(),
        ):
            pass
    assert thesis.read_text() == "done"
    assert not (tmp_path / "absent").exists()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / ".lock").write_text("a note")
    with RunFolder(tmp_path / "kept").lock():
        pass
    assert (tmp_path / "kept" / ".lock").read_text() == "a note"


def test_snapshots_are_ordered_by_step(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    for step in (10, 2):
        folder.snapshot_path(step).parent.mkdir(exist_ok=True)
        folder.snapshot_path(step).write_bytes(b"")
    assert list(folder.snapshots()) == [2, 10]


def test_a_file_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("done")
    for target in (tmp_path / "thesis.tex", tmp_path / "thesis.tex" / "runs"):
        with pytest.raises(RunError) as caught:
            make_folder(target)
        assert (
            str(caught.value)
            == f"{target} cannot be created (a file is in the way): choose another --out"
        )
    assert (tmp_path / "thesis.tex").read_text() == "done"
