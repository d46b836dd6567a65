"""The tutorial on services: its commands run in the order of the page, on a small network."""

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forked_command import served_address, start_command

sys.path.insert(0, str(Path(__file__).parent))
from drawn_photos import draw_photos

TEXT = (Path(__file__).parents[2] / "docs" / "service.md").read_text(encoding="utf-8")
(PHOTO, *_) = re.findall(r"^\$ PHOTO=(\S+)$", TEXT, flags=re.MULTILINE)
COMMANDS = re.findall(
    r"^\$ (?:reslearn|curl) (.+)$", TEXT.replace("$PHOTO", PHOTO), flags=re.MULTILINE
)
PROGRAM = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
TRAIN = (
    "train photos --out runs/photos --recipe photos --model resnet8 --epochs 2 "
    "--set data.size_px=32 --set train.batch_size=8"
)

Run = Callable[..., tuple[int, str, str]]


def test_the_page_has_its_commands() -> None:
    assert [command.split()[0] for command in COMMANDS] == [
        *("predict", "export", "predict", "serve"),
        *("-F", "bench"),
    ]


def test_the_commands_run_in_the_order_of_the_page(
    reslearn: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reslearn.deploy.form_speed._SECONDS", 0.0)
    draw_photos(tmp_path / "photos", 24)
    predict, export, predict_file, serve, curl, bench = COMMANDS
    assert reslearn(*shlex.split(TRAIN))[0] == 0
    outputs = []
    for command in (predict, export, predict_file):
        status, output, errors = reslearn(*shlex.split(command))
        assert status == 0, output + errors
        outputs.append(output)
    assert all("hat" in outputs[index] and PHOTO in outputs[index] for index in (0, 2))
    assert "answers of `reslearn serve` over HTTP" in outputs[1]
    assert Path("photos-model.onnx").exists() and Path("photos-model.int8.onnx").exists()
    command = serve.replace("--port 8000", "--port 0 --engine torch --threads 1")
    messages = tmp_path / "messages.txt"
    server = start_command(*shlex.split(command), streams={1: os.devnull, 2: messages})
    assert server.pid is not None
    try:
        address = served_address(server, messages)
        (path,) = re.findall(r"image=@(\S+)", curl)
        namespace: dict[str, Any] = {}
        exec(PROGRAM[0], namespace)
        entries = namespace["classes_of"](path, address)
        assert {name for name, _ in entries} == {"dress", "hat"}
        assert sum(probability for _, probability in entries) == pytest.approx(1, abs=1e-5)
        os.kill(server.pid, signal.SIGTERM)
        server.join(60)
        assert server.exitcode == 0
    finally:
        server.kill()
        server.join()
    assert bench.split()[:2] == ["bench", "serve"]
