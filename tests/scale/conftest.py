"""An S3 server on this machine, and one in front of it that is slow, fails and cuts connections."""

import http.client
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Faults:
    """What the server in front does to the next requests: a list of "500", "cut", "slow", or "ok"."""

    def __init__(self) -> None:
        self.plan: list[str] = []
        self.met: Counter[str] = Counter()
        self._lock = threading.Lock()

    def next(self) -> str:
        with self._lock:
            what = self.plan.pop(0) if self.plan else "ok"
            self.met[what] += 1
            return what


def front(target: tuple[str, int], faults: Faults) -> ThreadingHTTPServer:
    """A server that hands requests on to `target`, or does what `faults` says."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _hand_on(self) -> None:
            body = self._body()
            what = faults.next()
            if what == "500":
                self.send_response(500)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if what == "slow":
                time.sleep(0.3)
            there = http.client.HTTPConnection(*target)
            there.request(self.command, self.path, body, dict(self.headers))
            answer = there.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for key, value in answer.getheaders():
                if key.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                    self.send_header(key, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if what == "cut":
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                self.connection.close()
                return
            if self.command != "HEAD":
                self.wfile.write(data)

        def _body(self) -> bytes:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                del self.headers["Transfer-Encoding"]
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _hand_on

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def store():
    """(faults, boto's client past the faults) of a server with the bucket "box"; the environment points to it."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install s3fs 'moto[server]'")
    pytest.importorskip("moto.server", reason="moto's server is not installed: pip install 'moto[server]'")
    import boto3
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    faults = Faults()
    server = front((host, port), faults)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "me")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket="box")
        yield faults, client
    server.shutdown()
    moto.stop()


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    """Short pauses, a cache of each test's own."""
    from fcos.system import remote

    monkeypatch.setattr(remote, "PAUSE", 0.01)
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "cache"))
