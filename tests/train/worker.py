"""Runs the trainer in a process of its own, so that a test can choose devices, hosts and its death.

    python worker.py '{"workdir": ..., "data": ..., "changes": {...}, "kill": ["write", 20]}'

``kill`` is a moment to die at with SIGKILL: ["write", step] half-way through writing a row of
metrics.jsonl, ["save", step] with a checkpoint under way, ["step", n] after the n-th step of this
process, between checkpoints, ["publish", moment] while the policy folder is written: after its
"tensors", "before" or "after" it gets its name. ``policies`` {name: changes} are trained together,
as a sweep.
``data`` are paths by source: "good" is clean, the others are corrupt. ``ids`` is a file that gets a
line for each step: its number and the ids of this host's rows of a streamed batch.
"""

import json
import os
import pathlib
import signal
import sys


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _arm(kind, moment):
    from ambient_jax.train import checkpoint, loop, metrics

    if kind == "write":
        original = metrics.Writer.write

        def write(self, row, timing):
            if row["step"] == moment:
                with open(self.folder / "metrics.jsonl", "a") as file:
                    file.write(json.dumps(row)[:40])
                _die()
            original(self, row, timing)

        metrics.Writer.write = write
    elif kind == "save":
        original = checkpoint.Checkpointer.save

        def save(self, step, *args):
            original(self, step, *args)
            if step == moment:
                _die()

        checkpoint.Checkpointer.save = save
    elif kind == "publish":
        from ambient_jax.publish import folder

        if moment == "tensors":
            folder._digest = lambda path: _die()
        original = pathlib.Path.rename

        def rename(self, target):
            if "partial" in self.name and moment == "before":
                _die()
            original(self, target)
            if "partial" in self.name:
                _die()

        pathlib.Path.rename = rename
    else:
        original = loop.run

        def run(state, step_fn, *args, **options):
            calls = []

            def counted(*inputs):
                calls.append(1)
                if len(calls) == moment:
                    os.kill(os.getpid(), signal.SIGTERM if kind == "sigterm" else signal.SIGKILL)
                return step_fn(*inputs)

            return original(state, counted, *args, **options)

        loop.run = run


def _record(path):
    import numpy as np

    from ambient_jax.train import loop

    original = loop.run

    def run(state, step_fn, batches, *, start, **options):
        file, steps = open(path, "a"), iter(range(start + 1, 10**9))  # noqa: SIM115

        def recorded(state, batch):
            ids = np.asarray(batch["id"]).reshape(-1, 3).tolist()
            print(json.dumps([next(steps), ids]), file=file, flush=True)
            return step_fn(state, batch)

        return original(state, recorded, batches, start=start, **options)

    loop.run = run


def config_for(job):
    import ml_collections

    from ambient_jax.train import config as config_lib

    config = config_lib.default()
    config.name = "worker"
    for name, path in job["data"].items():
        clean = name == "good"
        bounds = {} if clean else {"sigma_min": 0.3}
        config.data.sources[name] = config_lib.source(
            path, "clean" if clean else "corrupt", **bounds
        )
    config.data.observation = ("state", "goal")
    config.data.horizon, config.policy.execute = 8, 4
    config.data.shuffle_window = 50
    # Groups of several channels: with one, a bias before the norm has no gradient but rounding.
    config.model.update({"features": (8,), "blocks": 1, "groups": 2, "embed_dim": 16})
    config.train.update(dict(steps=40, batch_size=16, warmup=4, log_every=7, checkpoint_every=10))
    for path, value in job.get("changes", {}).items():
        if path == "law":
            value = ml_collections.ConfigDict(value)
        *parents, name = path.split(".")
        section = config
        for parent in parents:
            section = section[parent]
        section[name] = value
    return config


def configs_for(job):
    changes = job.get("changes", {})
    return {n: config_for(job | {"changes": changes | c}) for n, c in job["policies"].items()}


def main(job):
    import numpy as np

    from ambient_jax.train import parallel, sweep, trainer

    parallel.initialize(
        job.get("coordinator", ""), job.get("num_processes", 0), job.get("process_id", -1)
    )
    if "kill" in job:
        _arm(*job["kill"])
    if "ids" in job:
        _record(job["ids"])
    if "policies" in job:
        result = sweep.train(configs_for(job), job["workdir"])
    else:
        result = trainer.train(config_for(job), job["workdir"])
    print(json.dumps({"step": result.step, "signal": result.signal}))
    if "params" in job:
        import jax

        from ambient_jax.train import checkpoint

        if jax.process_index() == 0:
            params = checkpoint.load_policy_assets(job["workdir"])["params"]
            flat = jax.tree_util.tree_flatten_with_path(params)[0]
            np.savez(job["params"], **{jax.tree_util.keystr(k): v for k, v in flat})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
