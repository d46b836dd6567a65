"""The server over real sockets: answers, bad input, limits on bytes, time and the queue."""

import asyncio
import base64
import io
import json
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from reslearn.deploy import Predictor, server_batches
from reslearn.deploy.heat_maps import draw_heat_maps
from reslearn.deploy.server import serving
from reslearn.deploy.server_app import ModelServer, PredictAnswer
from reslearn.deploy.server_batches import (
    BatchingQueue,
    DecodedPicture,
    PendingRequest,
    ThreadTeam,
)
from reslearn.deploy.server_body import PictureFile
from reslearn.deploy.server_limits import Admission, Limits

sys.path.insert(0, str(Path(__file__).parent))
from served import FORM, JSON, LIMITS, PART, picture, wait_until

CLASSES = ("blue", "green", "red")
TOKEN = "a-long-token"


def in_json(*pictures: bytes, **options: Any) -> dict[str, Any]:
    return {"images": [base64.b64encode(content).decode() for content in pictures], **options}


def test_answers_equal_those_of_the_predictor(client: httpx.Client, predictor: Predictor) -> None:
    contents = [picture(1), picture(2, "JPEG"), picture(3)]
    expected = predictor(contents)
    files = [("image", (f"{number}.png", content)) for number, content in enumerate(contents)]
    forms = [
        client.post("/v1/predict", files=files, data={"model": "b", "top": "9"}),
        client.post("/v1/predict", json=in_json(*contents, model="b", top=9)),
    ]
    for response in forms:
        assert response.status_code == 200
        answer = response.json()
        PredictAnswer.model_validate(answer)
        assert answer["model"] == "b"
        for entry, prediction in zip(answer["predictions"], expected, strict=True):
            assert entry["class"] == prediction.label
            probabilities = {top["class"]: top["probability"] for top in entry["top"]}
            values = [probabilities[name] for name in CLASSES]
            np.testing.assert_allclose(values, prediction.probabilities, atol=1e-5)
    assert [entry["picture"] for entry in forms[0].json()["predictions"]] == [
        "0.png",
        "1.png",
        "2.png",
    ]


def test_the_heat_map_is_a_png(client: httpx.Client) -> None:
    answer = client.post("/v1/predict", json=in_json(picture(1), heat_map=True, top=1)).json()
    (entry,) = answer["predictions"]
    head, _, text = entry["heat_map"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(text).startswith(b"\x89PNG")
    assert len(entry["top"]) == 1


def test_description_state_and_metrics(client: httpx.Client) -> None:
    model = client.get("/v1/model").json()
    assert (model["name"], model["models"], model["classes"]) == ("a", ["a", "b"], list(CLASSES))
    assert client.get("/v1/model", params={"name": "b"}).json()["name"] == "b"
    assert client.get("/v1/model", params={"name": "x\n"}).status_code == 404
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    client.post("/v1/predict", json=in_json(picture(1)))
    client.get("/a-path-of-the-client")
    text = client.get("/metrics").text
    assert 'reslearn_batch_pictures_count{model="a"}' in text
    assert 'path="other",status="404"' in text
    assert "a-path" not in text


def bomb() -> bytes:
    """Return a small PNG that declares 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    size = (40_000).to_bytes(4, "big")
    head = chunk(b"IHDR", size + size + b"\x08\x00\x00\x00\x00")
    data = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


BAD_REQUESTS: list[tuple[str, dict[str, str], Callable[[], bytes], int, str]] = [
    ("no body", {}, lambda: b"", 415, "allowed are"),
    ("text", {"content-type": "text/plain"}, lambda: b"x", 415, "text/plain"),
    ("empty JSON", JSON, lambda: b"", 400, "Invalid JSON"),
    ("broken JSON", JSON, lambda: b'{"images": [', 400, "Invalid JSON"),
    ("no UTF-8", JSON, lambda: b'{"images": ["\xff"]}', 400, "Invalid JSON"),
    ("nested JSON", JSON, lambda: b"[" * 900, 400, "Invalid JSON"),
    ("a list", JSON, lambda: b"[]", 422, "object"),
    ("no images", JSON, lambda: b'{"images": []}', 422, "images"),
    ("wrong type", JSON, lambda: b'{"images": [3]}', 422, "images.0"),
    ("wrong key", JSON, lambda: b'{"image": "AA=="}', 422, "fields are heat_map, images,"),
    ("no base64", JSON, lambda: b'{"images": ["%%"]}', 422, "not base64"),
    ("not ASCII", JSON, lambda: '{"images": ["é"]}'.encode(), 422, "not base64"),
    ("no picture", JSON, lambda: b'{"images": ["AAAA"]}', 422, "image 1 cannot be read"),
    ("too many", JSON, lambda: json.dumps({"images": ["AAAA"] * 5}).encode(), 413, "4 are"),
    ("bomb", JSON, lambda: json.dumps(in_json(bomb())).encode(), 422, "million pixels"),
    ("cut", JSON, lambda: json.dumps(in_json(picture(1)[:-900])).encode(), 422, "image 1"),
    ("model", JSON, lambda: json.dumps(in_json(picture(1), model="z")).encode(), 404, "'z'"),
    ("top", JSON, lambda: json.dumps(in_json(picture(1), top=0)).encode(), 422, "top"),
    ("no boundary", {"content-type": "multipart/form-data"}, lambda: PART, 400, "boundary"),
    ("no form", FORM, lambda: b"nothing", 400, "malformed"),
    ("empty form", FORM, lambda: b"--b--\r\n", 422, "no picture"),
    ("cut form", FORM, lambda: PART + picture(1), 400, "too early"),
    ("many parts", FORM, lambda: (PART + b"\r\n") * 100 + b"--b--", 400, "more than 64 parts"),
    ("long head", FORM, lambda: PART[:-4] + b"\r\nx: " + b"y" * 9000, 400, "malformed"),
    ("field", FORM, lambda: PART.replace(b"image", b"top") + b"x\r\n--b--", 422, "top"),
    (
        "other field",
        FORM,
        lambda: PART.replace(b"image", b"file") + b"\r\n--b--",
        422,
        "image, model",
    ),
    ("no name", FORM, lambda: b"--b\r\n\r\nx\r\n--b--\r\n", 422, ""),
]


@pytest.mark.parametrize(
    ("headers", "content", "status", "text"),
    [case[1:] for case in BAD_REQUESTS],
    ids=[case[0] for case in BAD_REQUESTS],
)
def test_bad_requests_get_one_line(
    client: httpx.Client,
    headers: dict[str, str],
    content: Callable[[], bytes],
    status: int,
    text: str,
) -> None:
    response = client.post("/v1/predict", content=content(), headers=headers)
    assert response.status_code == status, response.text
    assert response.text.count("\n") == 1
    assert text in response.json()["error"]
    assert len(response.text) < 700


def test_names_of_clients_cannot_forge_lines(client: httpx.Client, log: io.StringIO) -> None:
    part = PART.replace(b'"x"', '"\x1b[31m\u2028é.png"'.encode())
    response = client.post("/v1/predict", content=part + b"x\r\n--b--\r\n", headers=FORM)
    assert response.status_code == 422
    assert "\x1b" not in response.text
    assert "\x1b" not in response.json()["error"]
    client.get("/x%0A%1b[31m%22?token=secret")
    wait_until(lambda: json.loads(log.getvalue().splitlines()[-1])["path"] == '/x\n\x1b[31m"')
    lines = log.getvalue().splitlines()
    assert "secret" not in lines[-1]
    assert "\x1b" not in lines[-1]


def test_a_large_upload_is_refused_while_it_arrives(
    client: httpx.Client, model_server: ModelServer
) -> None:
    num_sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal num_sent
        for _ in range(3000):
            num_sent += 2**16
            yield bytes(2**16)

    for content in (bytes(300_000), endless()):
        response = client.post("/v1/predict", content=content, headers=JSON)
        assert response.status_code == 413
        assert "200,000 bytes" in response.json()["error"]
        assert response.headers["connection"] == "close"
    assert num_sent < 100 * 2**20
    assert model_server.admission.bytes == 0


@pytest.mark.parametrize("path", ["/v1/predict%0A", "/v1/predict/", "/", "/other"])
def test_every_upload_is_limited_whatever_its_path(client: httpx.Client, path: str) -> None:
    """A router may know more spellings of a path than the gate: `$` also matches before %0A."""
    response = client.post(path, content=b"x" * (LIMITS.body_bytes + 1))
    assert response.status_code == 413


@pytest.mark.parametrize("value", [b"0,", b"[],", b"{},"])
def test_millions_of_small_values_are_refused_before_they_are_parsed(
    client: httpx.Client, value: bytes
) -> None:
    content = b'{"images": [' + value * 2000 + b'""]}'
    headers = {"content-type": "application/json"}
    response = client.post("/v1/predict", content=content, headers=headers)
    assert response.status_code == 422
    assert "more than 1000 values" in response.json()["error"]


@pytest.mark.parametrize("form", ["PPM", "SGI", "TGA"])
def test_formats_that_clients_do_not_send_are_refused(client: httpx.Client, form: str) -> None:
    response = client.post("/v1/predict", files={"image": picture(1, form)})
    assert response.status_code == 422
    assert "not a picture of these formats: AVIF, BMP" in response.json()["error"]


def test_a_picture_with_too_many_pixels_is_refused(predictor: Predictor) -> None:
    with httpx.Client() as client:
        for pixels, status in ((40 * 31, 200), (40 * 31 - 1, 422)):
            limits = Limits(pixels=pixels, drain_seconds=0.0)
            with serving(ModelServer({"model": predictor}, limits)) as address:
                response = client.post(f"{address}/v1/predict", files={"image": picture(1)})
            assert response.status_code == status


def test_decoded_pictures_that_wait_are_limited(predictor: Predictor) -> None:
    limits = Limits(pixels=10_000, queued_pixels=10_000, drain_seconds=0.0)
    server = ModelServer({"model": predictor}, limits)
    with serving(server) as address, httpx.Client(base_url=address) as client:
        server.admission.pixels = 10_000 - 24**2 + 1
        assert client.post("/v1/predict", files={"image": picture(1)}).status_code == 503
        server.admission.pixels = 10_000 - 24**2
        assert client.post("/v1/predict", files={"image": picture(1)}).status_code == 200


def test_a_server_that_ends_says_so(model_server: ModelServer, client: httpx.Client) -> None:
    model_server.admission.is_draining = True
    try:
        response = client.get("/readyz")
        assert (response.status_code, response.headers["connection"]) == (503, "close")
        assert client.post("/v1/predict", files={"image": picture(1)}).status_code == 200
    finally:
        model_server.admission.is_draining = False
    assert client.head("/readyz").status_code == 200


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict%0A"])
def test_both_ways_to_the_predictions_are_the_same(client: httpx.Client, path: str) -> None:
    """The exact path goes around the router, and the router takes a line feed for an end."""
    answers = [
        client.post(path, json=in_json(picture(1), top=1)),
        client.post(path, json=in_json(picture(1), model="z")),
        client.post(path, content=b"x" * (LIMITS.body_bytes + 1), headers=JSON),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 413]
    assert answers[0].headers["content-type"] == "application/json"
    assert answers[0].headers["x-content-type-options"] == "nosniff"
    assert client.get("/v1/predict").status_code == 405


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict%0A"])
def test_an_error_of_the_server_is_logged_and_gets_500(
    predictor: Predictor, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Predictor):
        def predict_pixels(self, pixels: Any) -> Any:
            raise RuntimeError("the model is broken")

    server = ModelServer({"a": Broken(predictor.model)}, Limits(drain_seconds=0.0))
    with serving(server) as address:
        response = httpx.post(f"{address}{path}", files={"image": picture(1)})
    assert response.status_code == 500
    assert response.json() == {"error": "the server failed; its log has the reason"}
    assert "the model is broken" in caplog.text
    assert (server.admission.pictures, server.admission.pixels) == (0, 0)


class SlowPredictor(Predictor):
    """A predictor that waits until the test releases it, and counts its batches."""

    release: threading.Event
    batches: list[int]

    def predict_pixels(self, pixels: Any) -> Any:
        self.batches.append(len(pixels))
        self.release.wait(20)
        return super().predict_pixels(pixels)


@pytest.fixture
def slow(bundle: Path) -> SlowPredictor:
    predictor = SlowPredictor(bundle)
    predictor.release, predictor.batches = threading.Event(), []
    return predictor


def test_a_full_queue_answers_503_and_what_waits_shares_a_batch(slow: SlowPredictor) -> None:
    (expected,) = Predictor(slow.model)([picture(1)])
    server = ModelServer({"a": slow}, Limits(queued_pictures=5, pictures=4, drain_seconds=0.0))
    with serving(server) as address, ThreadPoolExecutor(5) as pool:

        def post(count: int) -> httpx.Response:
            body = in_json(*[picture(1)] * count)
            return httpx.post(f"{address}/v1/predict", json=body, timeout=20)

        first = pool.submit(post, 1)
        wait_until(lambda: slow.batches == [1])
        others = [pool.submit(post, 1) for _ in range(3)]
        wait_until(lambda: server.admission.pictures == 4)
        refused = post(2)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "queue is full" in refused.json()["error"]
        last = pool.submit(post, 1)
        wait_until(lambda: server.service.queues["a"].num_waiting == 4)
        slow.release.set()
        responses = [future.result() for future in (first, *others, last)]
        assert [response.status_code for response in responses] == [200] * 5
        for response in responses:
            (entry,) = response.json()["predictions"]
            assert entry["probability"] == pytest.approx(expected.probability, abs=1e-5)
        assert slow.batches == [1, 4]
        assert server.admission.pictures == 0


def test_an_answer_that_takes_too_long_is_503(slow: SlowPredictor) -> None:
    server = ModelServer({"a": slow}, Limits(answer_seconds=0.2, drain_seconds=0.0))
    with serving(server) as address:
        response = httpx.post(f"{address}/v1/predict", json=in_json(picture(1)))
        assert response.status_code == 503
        assert "0.2 seconds" in response.json()["error"]
        assert server.admission.pictures == 0
        slow.release.set()


def test_a_broken_batch_does_not_take_others_down(predictor: Predictor) -> None:
    crop = predictor.pixels(picture(1))
    poison = np.full_like(crop, 77)

    class Fragile(Predictor):
        def predict_pixels(self, pixels: Any) -> Any:
            if any((array == 77).all() for array in pixels):
                raise RuntimeError("poison")
            return super().predict_pixels(pixels)

    async def ask() -> list[Any]:
        files = [PictureFile(name="x", content=b"")]
        requests = [PendingRequest(files) for _ in range(3)]
        for request, pixels in zip(requests, (crop, poison, crop), strict=True):
            admission.take_pixels(pixels)
            batches.put(DecodedPicture(request, 0, pixels))
        batches.start()
        return await asyncio.gather(
            *(request.answers for request in requests), return_exceptions=True
        )

    admission = Admission(Limits())
    drawers = ThreadTeam("draw", 1)
    batches = BatchingQueue("a", Fragile(predictor.model), admission, lambda *_: None, drawers)
    first, second, third = asyncio.run(ask())
    assert first[0].prediction.label == third[0].prediction.label
    assert isinstance(second, RuntimeError)
    assert batches.is_alive
    batches.stop()
    assert admission.pixels == 0


def test_heat_maps_keep_nobody_else_waiting_and_are_limited(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, num_drawing = threading.Event(), [0, 0]  # now, and the most at once

    def draw_slowly(model: Any, crops: Any, classes: Any) -> Any:
        num_drawing[0] += 1
        num_drawing[1] = max(num_drawing)
        release.wait(20)
        num_drawing[0] -= 1
        return draw_heat_maps(model, crops, classes)

    monkeypatch.setattr(server_batches, "draw_heat_maps", draw_slowly)
    server = ModelServer({"a": predictor}, Limits(pictures=2, heat_maps=3, drain_seconds=0.0))
    with serving(server) as address, ThreadPoolExecutor(2) as pool:

        def post(count: int, *, heat_map: bool) -> httpx.Response:
            body = in_json(*[picture(1)] * count, heat_map=heat_map)
            return httpx.post(f"{address}/v1/predict", json=body, timeout=20)

        drawn = [pool.submit(post, count, heat_map=True) for count in (2, 1)]
        wait_until(lambda: server.admission.heat_maps == 3 and num_drawing[0] == 1)
        refused = post(1, heat_map=True)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "too many heat maps" in refused.json()["error"]
        assert post(2, heat_map=False).status_code == 200
        release.set()
        responses = [future.result() for future in drawn]
    assert [len(response.json()["predictions"]) for response in responses] == [2, 1]
    assert all("heat_map" in entry for entry in responses[0].json()["predictions"])
    assert num_drawing == [0, 1]
    assert (server.admission.heat_maps, server.admission.pixels) == (0, 0)


def test_the_token(predictor: Predictor) -> None:
    server = ModelServer({"a": predictor}, Limits(drain_seconds=0.0), token=TOKEN)
    with serving(server) as address, httpx.Client(base_url=address) as client:
        for path in ("/", "/healthz", "/readyz", "/openapi.json"):
            assert client.get(path).status_code == 200
        for header in (None, "Bearer", "Bearer x", f"Basic {TOKEN}", TOKEN, "Bearer \x80é"):
            headers = {} if header is None else {"authorization": header.encode("latin-1")}
            for path in ("/v1/model", "/metrics", "/elsewhere"):
                response = client.get(path, headers=headers)
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == "Bearer"
            refused = client.post("/v1/predict", json=in_json(picture(1)), headers=headers)
            assert refused.status_code == 401
        headers = {"authorization": f"bearer {TOKEN}"}
        answer = client.post("/v1/predict", json=in_json(picture(1)), headers=headers)
        assert answer.status_code == 200


def test_the_page_runs_nothing_from_elsewhere(client: httpx.Client) -> None:
    response = client.get("/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http:" not in response.text
    assert "https:" not in response.text
    assert 'aria-live="polite"' in response.text
    assert client.head("/").status_code == 200


def test_requests_drawn_from_the_openapi_document(address: str, model_server: ModelServer) -> None:
    import schemathesis  # here, since it takes a second
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    checks = [
        not_a_server_error,
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    ]
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 5
    few_requests = settings(
        max_examples=12,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    for operation in operations:
        for mode in schemathesis.GenerationMode:
            if mode is schemathesis.GenerationMode.NEGATIVE and not takes_values(operation):
                continue
            few_requests(_sender(operation, mode, checks))()
    assert (model_server.admission.pictures, model_server.admission.bytes) == (0, 0)


def takes_values(operation: Any) -> bool:
    """Return whether a client can send a wrong value."""
    return len(operation.query) > 0 or len(operation.body) > 0


def _sender(operation: Any, mode: Any, checks: list[Any]) -> Callable[[], None]:
    @given(operation.as_strategy(generation_mode=mode))
    def send(case: Any) -> None:
        case.call_and_validate(checks=checks)

    return send
