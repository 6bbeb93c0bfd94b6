"""A server for the pages' clients, which name port 8000."""

import atexit
import contextlib

from ambient_jax import Policy
from ambient_jax.serve import client, server

_RUNNING = contextlib.ExitStack()
atexit.register(_RUNNING.close)


def serve(workdir):
    """Serves a run at a free port, and sends clients there that ask for port 8000."""
    options = server.Options(port=0, max_batch=1)
    found = _RUNNING.enter_context(server.running(Policy.from_checkpoint(workdir), options))
    first = client.Client.__init__

    def init(self, host="127.0.0.1", port=8000, **options):
        first(self, host, found if port == 8000 else port, **options)

    client.Client.__init__ = init
    _RUNNING.callback(setattr, client.Client, "__init__", first)
