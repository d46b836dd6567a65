"""The page on Ray Serve: two replicas, one of them killed under load, and no request lost."""

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

import pytest
from benchmarks.by_hand import jpeg_file

from reslearn.deploy import Predictor

ray = pytest.importorskip("ray", reason="pip install 'ray[serve]' for this test")
pytest.importorskip("grpc_reflection", reason="pip install 'ray[serve]' for this test")
# Ray Serve uses deprecated parts of other libraries, and leaves sockets to the garbage collector.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TEXT = (Path(__file__).parents[2] / "docs" / "ray-serve.md").read_text(encoding="utf-8")
SERVICE, CLIENT = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)
NUM_REQUESTS, NUM_CLIENTS = 600, 16


@pytest.fixture
def service(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the service of the page on a local Ray, and yield its address."""
    from ray import serve

    monkeypatch.setenv("MODEL", str(bundle))
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


def test_a_replica_is_killed_and_no_request_is_lost(service: str, bundle: Path) -> None:
    namespace: dict[str, Any] = {}
    exec(CLIENT, namespace)
    contents = [jpeg_file(seed) for seed in range(4)]
    expected = [prediction.label for prediction in Predictor(bundle)(contents)]
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
