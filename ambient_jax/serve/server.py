"""The websocket server: connections, limits, and the end of a server.

The event loop only moves bytes: requests are read in a pool of threads, and the policy runs in a
thread of its own (``batching``). A client has one request in work at a time; those that it sends
ahead wait in its own connection.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import hmac
import http
import logging as python_logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from absl import logging
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from ambient_jax.serve.batching import Answer, Batcher, takes_known
from ambient_jax.serve.client import pack
from ambient_jax.serve.options import Options, bound, is_loopback
from ambient_jax.serve.session import Session, describe

_GRACE = 0.2  # seconds in which a request that is on its way still counts as queued
_LOGGED = 3  # wrong requests of one connection that are logged


class Server:
    """Serves one policy until a signal, or ``stop``, ends it.

    Args:
      policy: a ``Policy``.
      options: limits and address.
      about: further metadata for clients, such as the checkpoint's step.
    """

    def __init__(self, policy: Any, options: Options, about: Mapping[str, Any] | None = None):
        self._policy, self._options = policy, options
        self._known = options.real_time and takes_known(policy)
        limits = {"max_message": options.max_message, "max_batch": options.max_batch}
        limits["real_time"] = self._known
        if self._known:
            limits["most_known"] = policy.most_known
        self._metadata = pack({**describe(policy), **limits, **(about or {})})
        self._token = f"Api-Key {options.token}".encode() if options.token else b""
        self._batcher = Batcher(policy, options.max_batch, options.seed, self._known)
        self._clients: set[ServerConnection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()  # that serve them
        self._receiving: set[asyncio.Timeout] = set()
        self._last = math.inf  # loop time after which no new request counts
        self.answered = self.refused = 0  # requests

    def run(self, ready: Callable[[int], None] = lambda port: None) -> None:
        """Compiles the policy, opens the port, calls ``ready(port)`` and serves until the end.

        OSError: the port is not free, which is known before anything is compiled.
        """
        if not self._options.token and not is_loopback(self._options.host):
            logging.warning(
                "listening on %s without a token: whoever reaches this port can use the policy",
                self._options.host,
            )
        python_logging.getLogger("websockets").setLevel(python_logging.CRITICAL)
        with bound(self._options.host, self._options.port) as port:
            self._batcher.start()
            try:
                asyncio.run(self._run(port, ready))
            finally:
                self._batcher.close(self._options.drain_timeout)

    def stop(self) -> None:
        """Ends the server after what is queued, from any thread; a second call ends it at once."""
        self._loop.call_soon_threadsafe(self._stop)

    async def _run(self, port, ready):
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._hurry = asyncio.Event()
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._stop)
        options = self._options
        workers = min(4, os.cpu_count() or 1)
        with concurrent.futures.ThreadPoolExecutor(workers, "requests") as self._pool:
            server = await serve(
                self._handle,
                sock=port,
                origins=[None],  # no page in a browser may drive a robot
                compression=None,
                process_request=self._admit,
                max_size=options.max_message,
                max_queue=1,
                ping_timeout=60,
                close_timeout=2,
            )
            ready(port.getsockname()[1])
            await self._stopping.wait()
            logging.info("stopping: %d clients are connected", len(self._clients))
            server.close(close_connections=False)
            self._last = self._loop.time() + _GRACE
            for waiting in self._receiving:
                with contextlib.suppress(RuntimeError):  # it has just expired
                    waiting.reschedule(self._last)
            ended = asyncio.ensure_future(server.wait_closed())
            hurry = asyncio.ensure_future(self._hurry.wait())
            limit = options.drain_timeout
            await asyncio.wait((ended, hurry), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            for task in self._tasks:  # of those that did not end in time
                task.cancel()
            await ended
        logging.info("answered %d requests, refused %d", self.answered, self.refused)

    def _stop(self):
        (self._hurry if self._stopping.is_set() else self._stopping).set()

    def _admit(self, connection, request):
        """Answers health checks, and refuses who may not connect."""
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        given = request.headers.get_all("Authorization")
        if self._token and not hmac.compare_digest(
            "\n".join(given).encode(errors="replace"), self._token
        ):
            return connection.respond(
                http.HTTPStatus.UNAUTHORIZED,
                "expected the header 'Authorization: Api-Key <token of the server>'\n",
            )
        if len(self._clients) >= self._options.max_clients:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, self._full + "\n")
        return None

    @property
    def _full(self):
        return f"{len(self._clients)} clients are connected, the most that this server takes"

    async def _handle(self, connection: ServerConnection) -> None:
        """Serves one client until it leaves, idles, or the server stops."""
        if len(self._clients) >= self._options.max_clients:
            await connection.close(1013, self._full)
            return
        self._clients.add(connection)
        task: Any = asyncio.current_task()
        self._tasks.add(task)
        try:
            await self._talk(connection)
        except ConnectionClosed:
            pass
        except asyncio.CancelledError:
            connection.transport.abort()
        except TimeoutError:
            logging.warning("%s does not read its answers: closed", _name(connection))
            connection.transport.abort()
        except Exception:
            logging.exception("the connection of %s failed", _name(connection))
            await connection.close(1011, "the server failed, see its log")
        finally:
            self._clients.discard(connection)
            self._tasks.discard(task)

    async def _talk(self, connection):
        session, wrong, took = self._session(), 0, None
        await self._send(connection, self._metadata)
        while (message := await self._receive(connection)) is not None:
            begin = time.monotonic()
            try:
                answer = await self._answer(session, message)
            except Exception as error:
                answer = _line(error)
                wrong, self.refused = wrong + 1, self.refused + 1
                if wrong <= _LOGGED:
                    more = "; its further ones are not logged" if wrong == _LOGGED else ""
                    logging.warning("wrong request of %s: %s%s", _name(connection), answer, more)
            else:
                self.answered += 1
                if took is not None:
                    answer["server_timing"]["prev_total_ms"] = 1000 * took
                answer = pack(answer)
            await self._send(connection, answer)
            took = time.monotonic() - begin
        stopping = self._stopping.is_set()
        await connection.close(1001, "the server stops" if stopping else "no request for too long")

    def _session(self):
        return Session(self._policy, self._options.max_message, self._known)

    async def _receive(self, connection):
        """Returns the next message; None if there is none in time."""
        limit = min(self._loop.time() + self._options.idle_timeout, self._last)
        try:
            async with asyncio.timeout_at(limit) as waiting:
                self._receiving.add(waiting)
                try:
                    return await connection.recv()
                finally:
                    self._receiving.discard(waiting)
        except TimeoutError:
            return None

    async def _send(self, connection, message):
        async with asyncio.timeout(self._options.send_timeout):
            await connection.send(message)

    async def _answer(self, session, message):
        begin, future = time.monotonic(), self._loop.create_future()

        def deliver(answer):
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(_settle, future, answer)

        def read():
            try:
                row = session.read(message)
                if row is None:
                    deliver(None)
                else:
                    self._batcher.submit(row, deliver)
            except Exception as error:
                deliver(error)

        self._pool.submit(read)
        answer: Answer | None = await future
        timing = {"infer_ms": 1000 * (time.monotonic() - begin)}
        if answer is None:
            return {"server_timing": timing}
        queue = {"queue_ms": 1000 * answer.waited, "batch": answer.rows}
        policy = {"infer_ms": 1000 * answer.seconds}
        actions = answer.actions
        return {"actions": actions, "policy_timing": policy, "server_timing": timing | queue}


@contextlib.contextmanager
def running(
    policy: Any, options: Options | None = None, about: Mapping[str, Any] | None = None
) -> Iterator[int]:
    """Serves a policy in a thread while the context lasts; its value is the port.

    Without ``options`` the port is any that is free.
    """
    server = Server(policy, options or Options(port=0), about)
    port: concurrent.futures.Future[int] = concurrent.futures.Future()

    def work():
        try:
            server.run(port.set_result)
        except BaseException as error:
            if port.done():
                raise
            port.set_exception(error)

    thread = threading.Thread(target=work, name="server", daemon=True)
    thread.start()
    try:
        yield port.result()
    finally:
        if port.done() and port.exception() is None and thread.is_alive():
            server.stop()
        thread.join()


def _settle(future, answer):
    if future.done():  # its connection has ended
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _line(error):
    """Returns an error as one line for a client."""
    text = " ".join(str(error).split())[:500]
    return (
        text
        if isinstance(error, ValueError | RuntimeError) and text
        else (f"the request failed ({type(error).__name__}) {text}".rstrip())
    )


def _name(connection):
    address = connection.remote_address
    return f"{address[0]}:{address[1]}" if address else "a client"
