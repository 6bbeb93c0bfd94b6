"""Rolls out a trained policy in a gymnasium environment, or finds the best checkpoint by rollouts.

python -m ambient_jax.rollout --checkpoint=runs/train/mine --env=gym_pusht/PushT-v0 \\
    --env_module=gym_pusht --observation=state
python -m ambient_jax.rollout --checkpoint=runs/train/mine --env=... --best

The first command writes ``<workdir>/rollouts/<env>/<step>/``: results.json, episodes.csv, table.md
and videos. The second runs equal episodes with all checkpoints, writes
``<workdir>/checkpoints_by_rollouts/<env>/`` and records the best one, which training then keeps as
``--checkpoint=<workdir>/best``. Its starts are others than those of the first command, so that what
chose a checkpoint does not judge it. The same command carries on after an interruption.

An episode is a success if its infos have, at any step, a true "is_success"; without that key a true
"success"; without both if it terminated. ``--success`` names another key.
"""

import json
from typing import Any

from absl import flags

from ambient_jax.cli import console


def _json(name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise ValueError(f"--{name} is {text!r}, expected JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f'--{name} is {text!r}, expected a JSON object such as {{"name": 1}}')
    return value


def _main(_: list[str]) -> None:
    console.setup()
    with console.one_line_errors():
        values = flags.FLAGS
        if not values.checkpoint:
            raise ValueError("expected --checkpoint=<workdir of a trained policy>")
        if not values.env:
            raise ValueError("expected --env=<gymnasium id>, such as gym_pusht/PushT-v0")
        from ambient_jax.rollout import checkpoints, environment, observations
        from ambient_jax.train import mirror

        kwargs = _json("env_kwargs", values.env_kwargs)
        env = environment.MakeEnv(values.env, values.env_module, kwargs)
        same = ("episodes", "envs", "execute", "success", "clip", "batch")
        options: dict[str, Any] = {name: values[name].value for name in same}
        if values.seed is not None:
            options["seed"] = values.seed
        options |= dict(
            max_steps=values.max_steps or None,
            source=values.source,
            out=values.out,
            vectorization=values.vectorization,
            observation=observations.parse(values.observation),
            constant=_json("constant", values.constant),
            solver={n: v for n in ("solver", "steps") if (v := values[n].value)},
        )
        with mirror.local_path(values.checkpoint, every_step=values.best) as path:
            if values.best:
                print(checkpoints.best(path, env, **options).table)
            else:
                options["videos"] = values.videos
                print(checkpoints.evaluate(path, env, **options).table)


if __name__ == "__main__":
    text, whole = flags.DEFINE_string, flags.DEFINE_integer
    text("checkpoint", "", "workdir or checkpoint of the policy")
    text("env", "", "gymnasium id; module:id imports the module first")
    text("env_module", "", "module to import first, which registers the id")
    text("env_kwargs", "", "arguments of the environment as a JSON object")
    text("observation", "", "policy's name=environment's name, ...; default: equal names")
    text("constant", "", "observations that the environment does not have, as a JSON object")
    whole("episodes", 50, "episodes; more than before add to those", lower_bound=1)
    whole("envs", 8, "episodes at once; changes no number", lower_bound=1)
    whole("execute", 0, "actions of a chunk that are executed; 0: the config's policy.execute")
    whole("seed", None, "episode e has seed + e; default: 0, with --best another", lower_bound=0)
    whole("videos", 4, "episodes of which to write a video", lower_bound=0)
    text("success", "", "key of the info that says success, or terminated")
    whole("max_steps", 0, "limit on the steps of an episode; 0: the environment's", lower_bound=0)
    flags.DEFINE_bool("clip", False, "clip actions to the action space")
    whole("batch", 8, "rows in a call of the policy; may change the rounding", lower_bound=1)
    flags.DEFINE_enum("vectorization", "sync", ["sync", "async"], "async: a process for each")
    text("solver", "", "default: the config's")
    whole("steps", 0, "steps of the solver; 0: the config's", lower_bound=0)
    text("source", "", "whose maps to unit size to use, if each source has its own")
    text("out", "", "folder of results; default: <workdir>/rollouts/<env>/<step>")
    flags.DEFINE_bool("best", False, "compare the workdir's checkpoints and record the best one")
    console.run(_main)
