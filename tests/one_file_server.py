"""A real local server of one file, which cuts connections, knows no ranges, or is gone: for tests of downloads."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """A server of one file; `cut_after` bytes of body it drops the connection, as often as `cuts` says.

    `refusal`: all that it answers, if set.
    """

    def __init__(self, body: bytes) -> None:
        self.body, self.cut_after, self.cuts, self.ranges = body, len(body), 0, True
        self.refusal: int | None = None  # a status
        self.requested: list[str | None] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                site.requested.append(asked)
                if site.refusal:
                    self.send_error(site.refusal)
                    return
                start = (
                    int(asked.removeprefix("bytes=").removesuffix("-"))
                    if asked and site.ranges
                    else 0
                )
                if start >= len(site.body):
                    self.send_error(416)
                    return
                body = site.body[start:]
                self.send_response(206 if asked and site.ranges else 200)
                if asked and site.ranges:
                    self.send_header(
                        "Content-Range", f"bytes {start}-{len(site.body) - 1}/{len(site.body)}"
                    )
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if site.cuts:
                    site.cuts -= 1
                    body = body[: site.cut_after]
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self.thread.start()

    def close(self) -> None:
        if (
            not self.thread.is_alive()
        ):  # a test that wants it gone closes it before the fixture does
            return
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
