"""`reslearn bench infer` and `bench serve`: every contestant has its turn. No time is asserted."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from benchmarks import infer, load_generator
from benchmarks import serve as serve_benchmark
from benchmarks.by_hand import jpeg_file
from benchmarks.plain_server import plain_app

from reslearn.deploy import Predictor
from reslearn.deploy.server import serving
from reslearn.deploy.server_app import ModelServer

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from benchmarks import peers

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def network(make_bundle: Callable[..., Path]) -> Path:
    # The plain server knows no temperature, and decodes a large JPEG in full.
    return make_bundle(temperature=1.0, weight_scale=1.0)


def test_ratios_are_medians_of_rounds() -> None:
    task = infer._Task("resnet8", Path(), threads=1)
    names = {"ours, onnx": True, "by hand, onnxruntime": False, "eager, plain network": False}
    contestants = [
        infer.Contestant(name=name, is_ours=is_ours, run=lambda batch: None)
        for name, is_ours in names.items()
    ]
    times = {
        ("ours, onnx", 1): [0.001, 0.002, 0.003],
        ("by hand, onnxruntime", 1): [0.002, 0.004, 0.003],
        ("eager, plain network", 1): [0.009, 0.009, 0.009],
        ("ours, onnx", 16): [0.016] * 3,
        ("by hand, onnxruntime", 16): [0.032] * 3,
        ("eager, plain network", 16): [0.008] * 3,
    }
    ours, by_hand, eager = task.rows("tensors", contestants, times, "onnxruntime")
    assert (ours.is_chosen, by_hand.is_chosen) == (True, False)
    assert (ours.latency_ms, ours.images_per_second) == pytest.approx((2, 1000))
    # The fastest other one is by hand for one image, and eager for sixteen.
    assert (ours.latency_ratio, ours.throughput_ratio) == (2, 0.5)
    assert (by_hand.latency_ratio, eager.throughput_ratio) == (1, 1)
    assert "* ours, onnx" in infer.table([ours, by_hand, eager])


def test_the_clients_count_answers_and_errors(network: Path) -> None:
    contents = [jpeg_file(0), b"not a picture"]
    with serving(ModelServer({"model": Predictor(network)})) as address:
        port = int(address.rpartition(":")[2])
        result = load_generator.run_load("127.0.0.1", port, contents, clients=3, seconds=0.3)
    assert set(result["statuses"]) == {200, 422}
    assert result["requests"] == result["statuses"][200] >= 3  # refused ones do not count
    assert 0 < result["p50_ms"] <= result["p99_ms"]


@pytest.mark.parametrize(
    "runtime",
    [
        "torch",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("onnxruntime", "openvino")),
    ],
)
def test_the_plain_server_gives_our_answers(network: Path, runtime: str) -> None:
    content = jpeg_file(1)
    (expected,) = Predictor(network)([content])
    transport = httpx.ASGITransport(app=plain_app(str(network), runtime))

    async def ask() -> dict[str, float]:
        async with httpx.AsyncClient(transport=transport, base_url="http://plain") as client:
            response = await client.post("/v1/predict", files={"image": content})
        answer: dict[str, float] = response.json()
        return answer

    answer = asyncio.run(ask())
    assert answer["class"] == expected.label
    assert answer["probability"] == pytest.approx(expected.probability, abs=0.01)


def test_the_share_of_the_engine_leaves_the_clients_out() -> None:
    turn = serve_benchmark._Turn
    turns = {
        "batched": [turn(pictures=100, seconds=1, cpu_seconds=1, client_cpu_seconds=1)],
        "one by one": [turn(pictures=25, seconds=1, cpu_seconds=2)],
        "plain": [turn(pictures=50, seconds=1, cpu_seconds=2)],
        "plain, same engine": [turn(pictures=20, seconds=1, cpu_seconds=2)],
        "engine, encoded pictures": [turn(pictures=200, seconds=1, cpu_seconds=1.6)],
        "engine, decoded pictures": [turn(pictures=400, seconds=1, cpu_seconds=1.6)],
    }
    row = serve_benchmark._row("batched", turns, "onnxruntime", clients=64, threads=2)
    assert (row.times_plain, row.times_one_by_one, row.client_cpu_pct) == (2, 4, 50)
    assert row.times_plain_engine == 5
    assert row.cpu_share_pct == pytest.approx(80)  # 8 ms beside 10 ms
    # The clients take half of the processor, and the engine makes 100 with the other half.
    assert row.throughput_share_pct == pytest.approx(100)
    assert row.decoded_cpu_share_pct == pytest.approx(40)
    assert row.decoded_throughput_share_pct == pytest.approx(50)
    assert "80 % by CPU,  100 % by throughput; on decoded" in serve_benchmark.table([row])


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_servers_end_with_a_benchmark_that_is_killed() -> None:
    code = """if True:
        import sys
        from benchmarks import serve
        serve._wait_for = lambda process, port: None
        with serve._started(["http.server", "PORT", "--bind", "127.0.0.1"]) as (process, _):
            print(process.pid, flush=True)
            sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as benchmark:
        assert benchmark.stdout is not None
        pid = int(benchmark.stdout.readline())
        assert is_running(pid)
        benchmark.kill()
    end = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(not peers.installed(), reason=peers.REASON)
def test_infer_runs_as_a_command(
    reslearn: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESLEARN_DATA", str(tmp_path))
    arguments = ("--models", "resnet8,resnet18", "--rounds", "1", "--no-compile", "--json")
    status, output, errors = reslearn("bench", "infer", *arguments)
    assert status == 0, errors
    rows = json.loads(output)
    assert len(rows) == 2 * (7 + 4)
    assert sum(row["is_chosen"] for row in rows) >= 2


@pytest.mark.slow
def test_serve_runs_as_a_command(
    reslearn: Run, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESLEARN_DATA", str(tmp_path))
    arguments = (str(network), "--clients", "4", "--rounds", "1", "--threads", "1", "--json")
    status, output, errors = reslearn("bench", "serve", *arguments)
    assert status == 0, errors
    rows = json.loads(output)
    assert [row["server"] for row in rows][:4] == [
        "batched",
        "one by one",
        "plain, same engine",
        "plain",
    ]
    assert all(row["errors"] == 0 for row in rows)
