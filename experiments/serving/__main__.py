"""Measures the policy server and writes a table and JSON files.

python -m experiments.serving --maze=runs/maze/x --pushing=runs/pushing/x --openpi=PYTHON
python -m experiments.serving --only=round_trip,memory,restart

``--maze`` and ``--pushing`` are workdirs of trained policies. ``--openpi`` is a Python that has
``openpi-client`` (and typing_extensions); without it our client asks. Each part writes
``<out>/<part>.json``; the table has all parts that are there.
"""

import contextlib
import functools
import json
import pathlib
import tempfile

from absl import flags, logging

from ambient_jax import _checks
from ambient_jax.cli import console, report
from ambient_jax.data.paths import write_text
from experiments.serving import tables

PARTS = ("maze", "pushing", "round_trip", "memory", "restart")
OUT = pathlib.Path(__file__).parent / "results"


def _main(_: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        values = flags.FLAGS
        parts = values.only or [p for p in PARTS if p not in ("maze", "pushing") or values[p].value]
        for part in parts:
            _checks.one_of("--only", part, PARTS)
        out = pathlib.Path(values.out)
        out.mkdir(parents=True, exist_ok=True)
        for part in parts:
            logging.info("measuring: %s", part)
            result = report.plain(_MEASURES[part](values))
            write_text(out / f"{part}.json", json.dumps(result, indent=1) + "\n")
        found = {part: out / f"{part}.json" for part in PARTS if (out / f"{part}.json").exists()}
        table = tables.table({part: json.loads(file.read_text()) for part, file in found.items()})
        write_text(out / "table.md", table)
        print(table)


def _rollouts(name):
    def measure(values):
        from experiments.serving import rollouts

        if not values[name].value:
            raise ValueError(f"expected --{name}=<workdir of a policy trained for it>")
        chosen = {"solver": values.solver, "steps": values.steps} if values.solver else {}
        given = [f"--{option}={value}" for option, value in chosen.items()]
        serve = lambda: _remote(values[name].value, values, given)  # noqa: E731
        result = rollouts.measure(values[name].value, values.episodes, chosen, serve)
        return result | {"client": _client(values)}

    return measure


@contextlib.contextmanager
def _remote(checkpoint, values, given):
    from ambient_jax.serve.remote import RemotePolicy
    from experiments.serving import processes

    with processes.served(checkpoint, *given) as server:
        if not values.openpi:
            options = dict(connections=16, timeout=600)
            with RemotePolicy.connect("127.0.0.1", server.port, **options) as remote:
                yield remote
            return
        with contextlib.closing(processes.Stock(values.openpi, server.port, 16)) as ask:
            yield RemotePolicy(ask, ask.metadata)


def _round_trip(values):
    import dataclasses

    import jax

    from ambient_jax.policy.policy import Policy
    from ambient_jax.serve.client import Client
    from experiments.serving import load, policies, processes

    results = {}
    for name, cameras in {"state": (), "two images": policies.CAMERAS}.items():
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = policies.save(folder, cameras)
            policy = Policy.from_checkpoint(checkpoint)
            policy = dataclasses.replace(policy, params=jax.device_put(policy.params))
            with processes.served(checkpoint, "--max_batch=1") as server:
                with Client("127.0.0.1", server.port, timeout=600) as ours:
                    one = load.round_trip(policy, functools.partial(load.timed, ours), values.calls)
                    results[name] = {"ours": one}
                if values.openpi:
                    stock = processes.Stock(values.openpi, server.port)
                    results[name]["openpi"] = load.round_trip(policy, stock.timed, values.calls)
                    stock.close()
    return results


def _memory(values):
    from ambient_jax.policy.policy import Policy
    from experiments.serving import load, policies, processes

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = policies.save(folder)
        policy = Policy.from_checkpoint(checkpoint)
        with processes.served(checkpoint, "--max_batch=32") as server:
            return load.many(server, policy, values.clients, values.requests)


def _restart(values):
    from ambient_jax.policy.policy import Policy
    from experiments.serving import load, policies

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = policies.save(folder)
        policy = Policy.from_checkpoint(checkpoint)
        return load.killed(checkpoint, policy, 8, values.kills, values.openpi)


def _client(values):
    return "openpi-client" if values.openpi else "ambient_jax"


_MEASURES = {
    "maze": _rollouts("maze"),
    "pushing": _rollouts("pushing"),
    "round_trip": _round_trip,
    "memory": _memory,
    "restart": _restart,
}

if __name__ == "__main__":
    flags.DEFINE_string("maze", "", "workdir of a maze policy")
    flags.DEFINE_string("pushing", "", "workdir of a planar pushing policy")
    flags.DEFINE_string("openpi", "", "a Python that has openpi-client")
    flags.DEFINE_string("solver", "", "of the rollouts, with --steps, in place of the config's")
    flags.DEFINE_integer("steps", 20, "of the solver", lower_bound=1)
    flags.DEFINE_integer("episodes", 200, "of each environment", lower_bound=1)
    flags.DEFINE_integer("calls", 200, "of each kind for the round trip", lower_bound=10)
    flags.DEFINE_integer("requests", 100_000, "over which memory is measured", lower_bound=100)
    flags.DEFINE_integer("clients", 32, "robots at once", lower_bound=1)
    flags.DEFINE_integer("kills", 3, "of the server", lower_bound=1)
    flags.DEFINE_list("only", [], f"some of {', '.join(PARTS)}; default: all that are possible")
    flags.DEFINE_string("out", str(OUT), "folder of the results")
    console.run(_main)
