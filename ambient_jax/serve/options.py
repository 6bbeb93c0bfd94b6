"""Limits and address of a server."""

import dataclasses
import ipaddress
import socket

from ambient_jax import _checks


@dataclasses.dataclass(frozen=True)
class Options:
    """What a server takes and when it gives up."""

    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    token: str = dataclasses.field(default="", repr=False)  # "": anyone may connect
    max_clients: int = 64
    max_batch: int = 16  # robots in one call of the policy
    max_message: int = 16 * 2**20  # bytes
    idle_timeout: float = 600.0  # seconds without a whole request, after which a client is closed
    send_timeout: float = 30.0  # seconds that a client may take to read an answer
    drain_timeout: float = 30.0  # seconds for the requests that are queued when the server stops
    real_time: bool = True  # takes known actions, for which each batch size is compiled as well
    seed: int | None = None  # of the noise of requests without a seed; None: from the system

    def __post_init__(self):
        _checks.number("port", self.port, 0, 65535, whole=True)
        _checks.number("max_batch", self.max_batch, 1, 4096, whole=True)
        for name in ("max_clients", "max_message"):
            _checks.number(name, getattr(self, name), 1, whole=True)
        for name in ("idle_timeout", "send_timeout", "drain_timeout"):
            _checks.number(name, getattr(self, name), 0, above=True)
        _checks.flag("real_time", self.real_time)
        if not (self.token.isascii() and self.token.isprintable()) or " " in self.token:
            raise ValueError("the token has spaces or other than ASCII characters, a header cannot")


def bound(host: str, port: int) -> socket.socket:
    """Returns a socket that has the address but does not listen yet: who connects is refused."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    one = socket.socket(family, kind, protocol)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of an ended server
        one.bind(address)
    except OSError as error:
        one.close()
        raise OSError(f"cannot listen on {host}:{port}: {error}") from error
    return one


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
