"""A local HTTP server of one file. It can drop connections and refuse ranges."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """Serve `body` at every path of `address`.

    Attributes:
        cuts: How many more answers are cut off.
        cut_after: Bytes of the body that a cut answer sends.
        ranges: Whether range requests are honored.
        refusal: HTTP status of every answer, if set.
        requested: The Range header of every request.
    """

    def __init__(self, body: bytes) -> None:
        self.body, self.cut_after, self.cuts, self.ranges = body, len(body), 0, True
        self.refusal: int | None = None
        self.requested: list[str | None] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                range_header = self.headers.get("Range")
                site.requested.append(range_header)
                if site.refusal:
                    self.send_error(site.refusal)
                    return
                start = 0
                if range_header and site.ranges:
                    start = int(range_header.removeprefix("bytes=").removesuffix("-"))
                if start >= len(site.body):
                    self.send_error(416)
                    return
                body = site.body[start:]
                self.send_response(206 if range_header and site.ranges else 200)
                if range_header and site.ranges:
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
        if not self.thread.is_alive():  # a test may close the server before its fixture does
            return
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
