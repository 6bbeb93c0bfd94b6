"""The processes of a measurement: the server's command, and openpi's clients beside it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

from ambient_jax.serve.client import pack, unpack

ROOT = pathlib.Path(__file__).parents[2]
_READY = re.compile(r" at ws://[\d.]+:(\d+) in batches of")


class Served(NamedTuple):
    """A running server."""

    process: subprocess.Popen
    port: int

    def memory(self) -> float:
        """Returns the resident memory in MiB (Linux)."""
        pages = int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def served(checkpoint: str | os.PathLike, *flags: str, port: int = 0) -> Iterator[Served]:
    """Runs ``python -m ambient_jax.serve`` while the context lasts; it begins when it is ready.

    ChildProcessError: the command ended before.
    """
    command = [sys.executable, "-m", "ambient_jax.serve", f"--checkpoint={checkpoint}"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [*command, f"--port={port}", *flags],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        log: list[str] = []
        for line in process.stderr:  # type: ignore[union-attr]
            log.append(line)
            if found := _READY.search(line):
                break
        else:
            raise ChildProcessError(f"the server did not start: {''.join(log)[-1000:]}")
        threading.Thread(target=lambda: list(process.stderr), daemon=True).start()
        yield Served(process, int(found[1]))
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()


def free_port() -> int:
    """Returns a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


class Stock:
    """openpi's own clients, ``count`` of them, in the process of ``stock.py``."""

    def __init__(self, python: str, port: int, count: int = 1):
        script = str(pathlib.Path(__file__).with_name("stock.py"))
        environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [python, script, str(port), str(count)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.metadata = self._read()

    def __call__(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns the answers in the order of the requests."""
        return self._job(requests=requests)

    def timed(self, request: dict[str, Any]) -> list[float]:
        """Returns milliseconds of a round trip as the client measures it, and the policy's."""
        return self._job(timed=request)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait(60)

    def _job(self, **job):
        data = pack(job)
        self._process.stdin.write(struct.pack("!I", len(data)) + data)
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        pipe: Any = self._process.stdout
        header = pipe.read(4)
        if len(header) < 4:
            code = self._process.wait(60)
            raise ChildProcessError(
                f"openpi's client ended with code {code}, expected answers: see its error above"
            )
        return unpack(pipe.read(*struct.unpack("!I", header)))
