"""Serves a trained policy to robots, in the protocol of openpi's client.

python -m ambient_jax.serve --checkpoint=runs/train/mine
python -m ambient_jax.serve --checkpoint=runs/train/mine --host=0.0.0.0 --token=SECRET

It listens on this machine alone unless --host says otherwise, and opens the port when the policy is
compiled. ``openpi-client`` and ``ambient_jax/serve/client.py`` connect to it. SIGTERM ends it after
the requests that are queued.
"""

import os
from typing import Any

from absl import flags, logging

from ambient_jax import _checks
from ambient_jax.cli import console

_TOKEN = "AMBIENT_JAX_SERVE_TOKEN"


def _main(_: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        values = flags.FLAGS
        if not values.checkpoint:
            raise ValueError("expected --checkpoint=<workdir of a trained policy>")
        try:
            from ambient_jax.serve import batching, server
        except ImportError as error:
            raise ValueError(f"{error}: pip install 'ambient_jax[serve]'") from error
        names = [f for f in server.Options.__dataclass_fields__ if f != "token"]
        chosen: dict[str, Any] = {name: values[name].value for name in names}
        chosen["token"] = values.token or os.environ.get(_TOKEN, "")
        options = server.Options(**chosen)
        policy, about = _load(values)

        def ready(port):
            logging.info(
                "serving %s (step %d, %s %d steps) at ws://%s:%d in batches of %s",
                *(values.checkpoint, about["checkpoint_step"], policy.solver, policy.steps),
                *(f"[{host}]" if ":" in host else host, port, ", ".join(map(str, sizes))),
            )

        serving = server.Server(policy, options, about)
        host, sizes = options.host, batching.sizes(options.max_batch)
        serving.run(ready)


def _load(values):
    """Returns the policy, its parameters on the device, and what clients are told of it."""
    import dataclasses

    import jax

    from ambient_jax.policy import inpainting
    from ambient_jax.policy.policy import Policy
    from ambient_jax.train import loading

    chosen = {name: values[name].value for name in ("solver", "steps")}
    if values.inpainting:
        chosen["inpainting"] = inpainting.Inpainting(values.inpainting)
    chosen = {name: value for name, value in chosen.items() if value is not None}
    path, step = loading.find(values.checkpoint)
    policy = Policy.from_checkpoint(path, source=values.source or None, **chosen)
    policy = dataclasses.replace(policy, params=jax.device_put(policy.params))
    return policy, {"checkpoint_step": step}


def _flags() -> None:
    from ambient_jax.policy import inpainting

    flags.DEFINE_string("checkpoint", "", "workdir, checkpoint, policy folder or hf://user/name")
    flags.DEFINE_string("source", "", "source whose statistics normalise, if each has its own")
    flags.DEFINE_enum("solver", None, _checks.SOLVERS, "in place of the config's")
    flags.DEFINE_integer("steps", None, "of the solver, in place of the config's", lower_bound=1)
    flags.DEFINE_enum("inpainting", None, inpainting.METHODS, "how known actions enter a chunk")
    flags.DEFINE_bool("real_time", True, "takes known actions; without, it starts in half the time")
    flags.DEFINE_string("host", "127.0.0.1", "address to listen on; 0.0.0.0: all of this machine")
    flags.DEFINE_integer("port", 8000, "0: any that is free")
    flags.DEFINE_string(
        "token", "", f"clients must send 'Authorization: Api-Key <token>'; or set {_TOKEN}"
    )
    flags.DEFINE_integer("max_clients", 64, "connections at once")
    flags.DEFINE_integer("max_batch", 16, "robots in one call of the policy")
    flags.DEFINE_integer("max_message", 16 * 2**20, "bytes of a request")
    flags.DEFINE_float("idle_timeout", 600.0, "seconds without a request until a client is closed")
    flags.DEFINE_float("send_timeout", 30.0, "seconds that a client may take to read an answer")
    flags.DEFINE_float("drain_timeout", 30.0, "seconds for queued requests when it stops")
    flags.DEFINE_integer("seed", None, "of the noise of requests without a seed; default: none")


if __name__ == "__main__":
    _flags()
    console.run(_main)
