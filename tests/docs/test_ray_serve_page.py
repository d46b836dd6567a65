"""The page on Ray Serve: two replicas, one of them killed under load, and no request lost."""

import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reslearn import models
from reslearn.data import Images, Preprocess
from reslearn.deploy import Predictor
from reslearn.interop import to_bytes

ray = pytest.importorskip("ray", reason="pip install 'ray[serve]' for this test")
pytestmark = pytest.mark.slow

TEXT = (Path(__file__).parents[2] / "docs" / "ray-serve.md").read_text(encoding="utf-8")
SERVICE, CLIENT = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
NUM_REQUESTS, NUM_CLIENTS = 600, 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (4, 24, 24, 3), dtype=torch.uint8)
    network = models.build("resnet8", num_classes=3)
    network.train()
    preprocess = Preprocess.fit(Images(pixels, torch.zeros(4, dtype=torch.int64)))
    with torch.no_grad():
        network(preprocess(pixels))
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    path.write_bytes(
        to_bytes(
            network.eval(),
            spec=network.spec,
            classes=("a", "b", "c"),
            preprocess=preprocess,
            metrics={},
            recipe_hash="0123456789ab",
        )
    )
    return path


@pytest.fixture
def service(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the service of the page on a local Ray, and yield its address."""
    from ray import serve

    monkeypatch.setenv("MODEL", str(model))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "service.py").write_text(SERVICE)
    ray.init(num_cpus=4, include_dashboard=False, runtime_env={"env_vars": _environment(tmp_path)})
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": 8765})
        import service as module

        serve.run(module.app)
        yield "http://127.0.0.1:8765/"
    finally:
        serve.shutdown()
        ray.shutdown()
        sys.modules.pop("service", None)


def _environment(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}


def test_a_replica_is_killed_and_no_request_is_lost(service: str, model: Path) -> None:
    namespace: dict[str, Any] = {}
    exec(CLIENT, namespace)
    contents = [picture(seed) for seed in range(4)]
    expected = [prediction.label for prediction in Predictor(model)(contents)]
    killed: list[int] = []

    def ask(number: int) -> bool:
        if number == NUM_REQUESTS // 3:
            process_id = replica_processes()[0]
            os.kill(process_id, signal.SIGKILL)
            killed.append(process_id)
        answer = json.loads(namespace["ask"](contents[number % 4], service))
        return bool(answer["class"] == expected[number % 4])

    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        answers = list(pool.map(ask, range(NUM_REQUESTS)))
    assert answers == [True] * NUM_REQUESTS
    assert len(killed) == 1
    wait_for_two_replicas(killed[0])


def picture(seed: int) -> bytes:
    """Return a PNG of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 31, 3), dtype=np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()


def replica_processes() -> list[int]:
    """Return the processes of the replicas. Ray names each process after its class."""
    processes = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            name = path.read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::ServeReplica"):
            processes.append(int(path.parent.name))
    return processes


def wait_for_two_replicas(killed: int) -> None:
    """Wait until Ray Serve has replaced the killed replica."""
    pause = threading.Event()
    for _ in range(600):
        alive = [process for process in replica_processes() if process != killed]
        if len(alive) == 2:
            return
        pause.wait(0.1)
    raise AssertionError("the killed replica was not replaced")
