"""Buckets on this machine: emulators of both stores behind a proxy that makes faults.

``gcp-storage-emulator`` and ``moto`` keep the objects. Google's lacks conditions, which the proxy
adds: an upload with ``ifGenerationMatch=0`` is refused where there is an object.
"""

import contextlib
import dataclasses
import http.client
import http.server
import json
import logging
import os
import random
import re
import socket
import struct
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter

from ambient_jax.data import stores

BUCKET = "robots"
KINDS = ("503", "429", "500", "reset", "lost", "cut", "few", "slow")


@dataclasses.dataclass
class Faults:
    """``rate`` is the share of requests with a fault of ``kinds``; ``made`` counts them. "lost" is
    a request that is done and whose answer does not come, "cut" ends in the middle of the answer,
    "few" has fewer bytes than were asked for and says so, "slow" waits."""

    rate: float = 0.0
    kinds: tuple[str, ...] = KINDS
    methods: tuple[str, ...] = ()  # of HTTP, that have faults; () for all
    latency: float = 0.0  # s, for each request
    made: Counter = dataclasses.field(default_factory=Counter)

    def __post_init__(self):
        self._random = random.Random(0)

    def reset(self):
        """Makes no more faults until fields are set; keeps the count."""
        self.rate, self.kinds, self.methods, self.latency = 0.0, KINDS, (), 0.0

    def draw(self, method, headers):
        if self._random.random() >= self.rate or (self.methods and method not in self.methods):
            return ""
        kind = self._random.choice(self.kinds)
        if kind == "few" and not (method == "GET" and headers.get("Range")):
            kind = "503"
        self.made[kind] += 1
        return kind


class _Proxy(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, backend, faults):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.backend, self.faults, self.lock = backend, faults, threading.Lock()

    def handle_error(self, *_):  # a client that was killed
        pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def log_message(self, *_):
        pass

    def _serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        faults = self.server.faults
        time.sleep(faults.latency)
        with self.server.lock:
            kind = faults.draw(self.command, self.headers)
        if kind == "slow":
            time.sleep(0.05)
        if kind == "reset":
            return self._reset()
        if kind in ("503", "429", "500"):
            return self._answer(int(kind), [], b'{"error": {"code": 0, "message": "injected"}}')
        status, headers, data = self._forward(body)
        if kind == "lost":
            return self._reset()
        if kind == "cut" and data and self.command == "GET":
            self._answer(status, headers, data, len(data) // 2)
            return self._reset()
        self._answer(status, headers, data[: len(data) // 2] if kind == "few" else data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = _serve  # noqa: N815

    def _forward(self, body):
        if self.command != "POST" or "ifGenerationMatch=0" not in self.path:
            return self._send(self.command, self.path, body)
        with self.server.lock:
            bucket = re.search(r"/b/([^/]+)/o", self.path)[1]
            name = json.loads(b'"' + re.search(rb'"name":\s*"((?:[^"\\]|\\.)*)"', body)[1] + b'"')
            there = f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}"
            if self._send("GET", there, b"", plain=True)[0] == 200:
                return 412, [], b'{"error": {"code": 412, "message": "there is one"}}'
            return self._send(self.command, self.path, body)

    def _send(self, method, path, body, plain=False):
        connection = http.client.HTTPConnection(*self.server.backend, timeout=60)
        skipped = ("connection", "content-length", "transfer-encoding")
        headers = {} if plain else dict(self.headers.items())
        headers = {n: v for n, v in headers.items() if n.lower() not in skipped}
        connection.request(method, path, body or None, headers | {"Content-Length": len(body)})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        kept = [
            (n, v) for n, v in answer.getheaders() if n.lower() not in (*skipped, "date", "server")
        ]
        if method == "HEAD" and (length := answer.getheader("Content-Length")):
            kept.append(("Content-Length", length))
        return answer.status, kept, data

    def _answer(self, status, headers, data, stop=None):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:stop])
        self.wfile.flush()

    def _reset(self):
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def _google():
    from gcp_storage_emulator.server import create_server

    logging.getLogger("gcp_storage_emulator.storage").disabled = True  # every absent object
    port = _free_port()
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    server.start()
    try:
        yield "127.0.0.1", port
    finally:
        server.stop()


@contextlib.contextmanager
def _amazon():
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").disabled = True  # every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=_free_port(), verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        made = urllib.request.Request(f"http://{host}:{port}/{BUCKET}", method="PUT")
        urllib.request.urlopen(made).close()
        yield host, port
    finally:
        server.stop()


@contextlib.contextmanager
def store(scheme, **faults):
    """Runs an emulator of ``gs`` or ``s3`` with a bucket; processes of this environment use it.
    Yields the bucket's URL and the ``Faults``, which may be changed meanwhile."""
    made = Faults(**faults)
    with _google() if scheme == "gs" else _amazon() as backend:
        proxy = _Proxy(backend, made)
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        address = f"http://127.0.0.1:{proxy.server_address[1]}"
        variables = {"STORAGE_EMULATOR_HOST": address}
        if scheme == "s3":
            variables = {
                "AWS_ENDPOINT_URL": address,
                "AWS_ACCESS_KEY_ID": "nobody",
                "AWS_SECRET_ACCESS_KEY": "none",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        before = {name: os.environ.get(name) for name in variables}
        os.environ |= variables
        stores.forget()
        try:
            yield f"{scheme}://{BUCKET}", made
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
            stores.forget()
            proxy.shutdown()
            proxy.server_close()
