"""A local HTTP server for one file, with faults to order."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves `content` at every path. Faults: `cut` (bytes after which the next answers break off, one per
    answer), `ranges=False` (Range is ignored), `status` (answered instead), `wait` (an Event every answer waits
    for). `requests` lists the Range header of each request, `served` counts the bytes sent."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.cut: list[int] = []
        self.ranges = True
        self.status: list[int] = []
        self.wait: threading.Event | None = None
        self.requests: list[str | None] = []
        self.served = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                outer.answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.requests.append(wanted)
        if self.wait is not None:
            self.wait.wait(10)
        if self.status:
            request.send_error(self.status.pop(0))
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(self.content) > 0:
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        request.send_header("Content-Length", str(len(self.content) - start))
        request.end_headers()
        body = self.content[start:]
        if self.cut:
            body = body[: self.cut.pop(0)]
            request.close_connection = True
        self.served += len(body)  # first: the client may go on as soon as it has them
        request.wfile.write(body)
