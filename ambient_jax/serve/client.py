"""A client of the policy server in one file, which a robot's computer can have without JAX.

It needs NumPy, websockets and msgpack alone:

>>> with Client("10.0.0.5", 8000, token="...") as client:
>>>     answer = client.infer({"state": state, "image_wrist": frame, "instruction": "open it"})
>>>     chunk = answer["actions"]                                   # [H, D] in data units

The protocol is openpi's (https://github.com/Physical-Intelligence/openpi, packages/openpi-client):
binary websocket messages of msgpack, in which an array is a map of four bytes keys,
``__ndarray__``, ``data``, ``dtype`` and ``shape``. Nothing is ever unpickled.
"""

from __future__ import annotations

import logging
import math
import random
import re
import time
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
import websockets.exceptions
import websockets.sync.client

_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"
# What an array may hold: booleans, integers, floats or text.
_DTYPES = re.compile(r"\|[bui]1|[<>=][uif][248]|[<>=]U\d{1,4}")
_MOST_AXES = 8
_FIRST_DELAY = 0.05  # seconds until a lost server is tried again; it doubles up to 2
# Codes with which a server ends a connection because of what it was sent: no use to try again.
_REFUSALS = (1002, 1003, 1007, 1008, 1009)
_log = logging.getLogger(__name__)


def pack(message: Any) -> bytes:
    """Returns the bytes of a message: maps, lists, texts, numbers and arrays.

    Raises:
      ValueError: an array holds neither numbers nor text, or a value is of an unknown type.
    """
    try:
        return msgpack.packb(message, default=_encode)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"the message cannot be packed: {error}") from error


def unpack(data: bytes, **limits: Any) -> Any:
    """Returns the message of bytes; its arrays are read-only views.

    Args:
      data: what ``pack`` or openpi's client made.
      **limits: of ``msgpack.unpackb``, such as ``max_array_len`` or its hooks.

    Raises:
      ValueError: the bytes are no message, or an array in it is malformed.
    """
    options = {"object_hook": decode, "ext_hook": _no_extension, **limits}
    try:
        return msgpack.unpackb(data, **options)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"the message is no msgpack of plain values and arrays: {reason}"
        ) from error


def _encode(value):
    if isinstance(value, np.ndarray | np.generic):
        dtype = value.dtype.str
        if not _DTYPES.fullmatch(dtype):
            raise TypeError(f"an array of {value.dtype}, expected booleans, numbers or text")
        if isinstance(value, np.ndarray):
            shape = list(value.shape)
            return {_ARRAY: True, b"data": value.tobytes(), b"dtype": dtype, b"shape": shape}
        return {_SCALAR: True, b"data": value.item(), b"dtype": dtype}
    raise TypeError(f"a value of type {type(value).__name__}, expected numbers, texts and arrays")


def decode(fields: dict[Any, Any]) -> Any:
    """Returns the array or NumPy scalar that a map stands for; any other map as it is."""
    if _ARRAY in fields:
        return _array(fields)
    if _SCALAR in fields:
        value = fields.get(b"data")
        if not isinstance(value, bool | int | float | str):
            raise ValueError(f"a NumPy scalar has data of type {type(value).__name__}")
        return _dtype(fields).type(value)
    return fields


def _array(fields):
    data, shape, dtype = fields.get(b"data"), fields.get(b"shape"), _dtype(fields)
    if not isinstance(data, bytes):
        raise ValueError(f"an array has data of type {type(data).__name__}, expected bytes")
    if not isinstance(shape, list | tuple) or len(shape) > _MOST_AXES:
        raise ValueError(f"an array has the shape {str(shape)[:60]}, expected up to 8 numbers")
    if any(type(n) is not int or not 0 <= n < 2**31 for n in shape):
        raise ValueError(f"an array has the shape {str(shape)[:60]}, expected whole numbers >= 0")
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(
            f"an array of {dtype.str} and shape {tuple(shape)} has {len(data)} bytes, expected "
            f"{expected}"
        )
    return np.ndarray(tuple(shape), dtype, data)


def _dtype(fields):
    name = fields.get(b"dtype")
    if not isinstance(name, str) or not _DTYPES.fullmatch(name):
        raise ValueError(
            f"an array has the dtype {str(name)[:40]!r}, expected numbers such as '<f4'"
        )
    return np.dtype(name)


def _no_extension(code, data):
    raise ValueError(f"it has a msgpack extension (type {code}), expected none")


class Refused(ValueError):
    """The server answered with an error, which is the message: the request was wrong."""


class Client:
    """A connection to a policy server, which is opened again when it is lost.

    A request is sent again after a lost connection: a policy is asked, nothing is moved. One thread
    uses a client at a time.

    Args:
      host: name or address, or "ws://..." or "wss://..." with everything.
      port: None if the host has it.
      token: the server's, if it asks for one.
      timeout: seconds to wait for one answer before the connection counts as lost.
      patience: seconds to try again before a request raises ConnectionError; 0: at once.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int | None = 8000,
        *,
        token: str = "",
        timeout: float = 30.0,
        patience: float = 60.0,
    ):
        address = host if host.startswith(("ws://", "wss://")) else f"ws://{host}"
        self.address = address if port is None else f"{address}:{port}"
        self.timeout, self.patience = timeout, patience
        self._headers = {"Authorization": f"Api-Key {token}"} if token else None
        self._connection: Any = None
        self._metadata: dict[str, Any] = {}
        self._fresh = False
        self._retried(lambda: None)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the server says of its policy: ``observations``, ``horizon``, ``history``, ..."""
        return self._metadata

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the server's answer; its ``actions`` are the chunk [H, D] in data units.

        Args:
          observation: {name: [d] or [T, d]}, images uint8 [h, w, 3], "instruction" a text. With
            "seed" (0 to 2^32 - 1) the same observation has the same chunk.

        Raises:
          Refused: the server found the observation wrong.
          ConnectionError: there was no answer for ``patience`` seconds.
          PermissionError: the server asks for another token.
        """
        data = pack({**observation, "reset": True} if self._fresh else dict(observation))
        most = self._metadata.get("max_message", math.inf)
        if len(data) > most:
            raise ValueError(f"the observation has {len(data)} bytes, the server takes {most}")

        def exchange():
            self._connection.send(data)
            return self._connection.recv(self.timeout)

        answer = self._retried(exchange)
        if isinstance(answer, str):
            raise Refused(answer)
        self._fresh = False
        return unpack(answer)

    def reset(self) -> None:
        """Begins an episode: the next request starts the server's history of this client anew."""
        self._fresh = True

    def close(self) -> None:
        """Closes the connection; the next request opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _retried(self, act):
        """Returns ``act()`` on an open connection, which is opened and asked until it works."""
        begin, delay = time.monotonic(), _FIRST_DELAY
        while True:
            try:
                if self._connection is None:
                    self._open()
                return act()
            except (OSError, EOFError, websockets.exceptions.WebSocketException) as error:
                self._drop()
                _raise_if_final(error)
                waited = time.monotonic() - begin
                if waited + delay > self.patience:
                    raise ConnectionError(
                        f"no answer of a policy server at {self.address} for {waited:.1f} s "
                        f"({_reason(error)}): look whether it runs there"
                    ) from error
                if delay == _FIRST_DELAY:
                    _log.warning("%s: %s; trying again", self.address, _reason(error))
            time.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(2 * delay, 2.0)

    def _open(self):
        self._connection = websockets.sync.client.connect(
            self.address,
            compression=None,
            max_size=None,
            additional_headers=self._headers,
            open_timeout=self.timeout,
            close_timeout=1,
            proxy=None,
        )
        metadata = unpack(self._connection.recv(self.timeout))
        if not isinstance(metadata, dict):
            raise ValueError(f"the server at {self.address} sent no metadata: no policy server?")
        if self._metadata and self._metadata.get("history", 1) > 1:
            _log.warning("connected again: the server's history of this client starts anew")
        self._metadata = metadata

    def _drop(self):
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close_socket()


def _raise_if_final(error):
    """Raises in place of an error that another try would meet again."""
    if isinstance(error, websockets.exceptions.InvalidStatus):
        if error.response.status_code in (401, 403):
            raise PermissionError(_reason(error)) from error
    if isinstance(error, websockets.exceptions.InvalidURI):
        raise ValueError(f"the address is no websocket's: {error}") from error
    if isinstance(error, websockets.exceptions.ConnectionClosed) and error.rcvd is not None:
        if error.rcvd.code in _REFUSALS:
            raise Refused(error.rcvd.reason or str(error)) from error


def _reason(error):
    if isinstance(error, websockets.exceptions.InvalidStatus):
        body = (error.response.body or b"").decode(errors="replace").strip()
        return f"HTTP {error.response.status_code} {body}"
    return str(error) or type(error).__name__
