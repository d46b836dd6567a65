"""Pictures and raw bytes to send to a model server, and its limits in the tests."""

import io
import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from reslearn.deploy.server_limits import Limits

LIMITS = Limits(
    body_bytes=200_000, all_bytes=400_000, read_seconds=0.6, pictures=4, drain_seconds=0.0
)
FORM = {"content-type": "multipart/form-data; boundary=b"}
JSON = {"content-type": "application/json"}
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'


def picture(seed: int, form: str = "PNG") -> bytes:
    """Return a picture file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 31, 3), dtype=np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, form)
        return file.getvalue()


def raw(address: str, content: bytes, *, pause: float = 0.0) -> bytes:
    """Send bytes, wait, and return all that the server sends until it closes the connection."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(content)
        time.sleep(pause)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
        return answer


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
