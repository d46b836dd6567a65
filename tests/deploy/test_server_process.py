"""`reslearn serve` as a process: several models, tokens, SIGTERM under load, many requests."""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx
import pytest

from forked_command import served_address, start_command
from reslearn.deploy import Predictor
from reslearn.deploy.server_models import named_sources

sys.path.insert(0, str(Path(__file__).parent))
from served import picture

Run = Callable[..., tuple[int, str, str]]


@dataclass(kw_only=True, eq=False)
class Process:
    """A server in a process of its own."""

    process: BaseProcess
    address: str
    log: Path
    messages: Path

    def end(self, number: int = signal.SIGTERM) -> int | None:
        """Send a signal, and return the exit status."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)
        self.process.join(60)
        return self.process.exitcode


@contextlib.contextmanager
def process(tmp_path: Path, *arguments: object, **environment: str) -> Iterator[Process]:
    log, messages = tmp_path / "access.log", tmp_path / "messages.txt"
    engine = [] if "--engine" in arguments else ["--engine", "torch"]
    server = start_command(
        *("serve", *arguments, "--port", "0", "--threads", "1", *engine),
        streams={1: log, 2: messages},
        environment={**os.environ, **environment},
    )
    try:
        address = served_address(server, messages)
        yield Process(process=server, address=address, log=log, messages=messages)
    finally:
        server.kill()
        server.join()


def test_sigterm_under_load_loses_no_request(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    expected = {prediction.label for prediction in Predictor(bundle)([picture(1)])}
    arguments = (f"cats={bundle}", f"dogs={bundle}", "--token-file", tmp_path / "token")
    started = threading.Barrier(9)
    with process(tmp_path, *arguments) as server, ThreadPoolExecutor(8) as pool:

        def send_until_refused(number: int) -> int:
            """Count answers until the server accepts no connection any more."""
            num_answers = 0
            with httpx.Client(
                base_url=server.address, timeout=30, headers={"authorization": "Bearer abc"}
            ) as client:
                while True:
                    try:
                        response = client.post(
                            "/v1/predict",
                            files={"image": picture(1)},
                            data={"model": ("cats", "dogs")[number % 2]},
                        )
                    except httpx.TransportError:
                        # Refused, or reset by the system before the server accepted it. The log
                        # shows that the server received no request without an answer.
                        return num_answers
                    assert response.status_code == 200, response.text
                    assert response.json()["predictions"][0]["class"] in expected
                    num_answers += 1
                    if num_answers == 3:
                        started.wait(60)

        counts = [pool.submit(send_until_refused, number) for number in range(8)]
        started.wait(60)
        assert server.end() == 0
        num_answers = sum(count.result(60) for count in counts)
        records = [json.loads(line) for line in server.log.read_text().splitlines()]
    assert [record["status"] for record in records] == [200] * num_answers
    assert {record["model"] for record in records} == {"cats", "dogs"}
    assert num_answers >= 24


def test_ctrl_c_and_the_token_of_the_environment(bundle: Path, tmp_path: Path) -> None:
    with process(tmp_path, bundle, RESLEARN_TOKEN="abc") as server:
        assert httpx.get(f"{server.address}/v1/model").status_code == 401
        headers = {"authorization": "Bearer abc", "content-type": "multipart/form-data; boundary=b"}
        malformed = httpx.post(f"{server.address}/v1/predict", content=b"x", headers=headers)
        assert malformed.status_code == 400
        assert server.end(signal.SIGINT) == 0
        # The client got the reason, and the log its line.
        assert server.messages.read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{bundle}", "--engine", "magic"], "--engine magic: allowed are auto, torch, onnx"),
        (["{bundle}", "--host", "203.0.113.1"], "cannot listen on 203.0.113.1, port 8000"),
        (["{bundle}", "--token-file", "{empty}"], "has no token"),
        (["{bundle}", "--token-file", "nowhere"], "nowhere"),
        (["nowhere", "--port", "0"], "there is no such run folder"),
        (["{bundle}", "{bundle}"], "each of several models needs a name"),
        (["a={bundle}", "a={bundle}"], "a is the name of two models"),
    ],
)
def test_wrong_use_is_one_line(
    bundle: Path, tmp_path: Path, reslearn: Run, arguments: list[str], message: str
) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    texts = [text.format(bundle=bundle, empty=empty) for text in arguments]
    status, output, errors = reslearn("serve", *texts)
    assert (status, output) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1


def test_names_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named_sources(["runs/a"]) == {"model": "runs/a"}
    assert named_sources(["a=runs/a", "b=c=d"]) == {"a": "runs/a", "b": "c=d"}
    Path("a=b").mkdir()
    assert named_sources(["a=b"]) == {"model": "a=b"}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_other_engines_compute_the_same(bundle: Path, engine: str) -> None:
    from reslearn.deploy.engine_choice import ServeEngine
    from reslearn.deploy.server_models import open_served

    (expected,) = Predictor(bundle)([picture(1)])
    predictor, _ = open_served(str(bundle), engine=ServeEngine(engine), threads=1)
    assert predictor.model.engine.runtime.startswith(engine)
    (prediction,) = predictor([picture(1)])
    assert prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-4)


@pytest.mark.slow
def test_ten_thousand_requests_of_64_clients(
    bundle: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    contents = [picture(seed) for seed in range(8)]
    expected = Predictor(bundle)(contents)
    with process(tmp_path, bundle, "--no-access-log") as server, ThreadPoolExecutor(64) as pool:

        def send(client_number: int, num_requests: int) -> int:
            num_right = 0
            with httpx.Client(base_url=server.address, timeout=60) as client:
                for number in range(client_number, num_requests, 64):
                    files = {"image": contents[number % 8]}
                    (entry,) = client.post("/v1/predict", files=files).json()["predictions"]
                    prediction = expected[number % 8]
                    num_right += (
                        entry["class"] == prediction.label
                        and abs(entry["probability"] - prediction.probability) < 1e-5
                    )
            return num_right

        memory = []
        for num_requests in (2_000, 8_000):
            answers = pool.map(send, range(64), [num_requests] * 64)
            assert sum(answers) == num_requests
            memory.append(resident_memory(server.process.pid))
            num_all = num_requests if len(memory) == 1 else 10_000
            record_property(f"resident MiB after {num_all}", round(memory[-1] / 2**20, 1))
        # A kilobyte that is kept of each request would be 8 MB.
        assert memory[1] - memory[0] < 8 * 2**20
        assert server.end() == 0


def resident_memory(process_id: int | None) -> int:
    """Return the resident memory in bytes."""
    status = Path(f"/proc/{process_id}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return 1024 * int(line.split()[1])
