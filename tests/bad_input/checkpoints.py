"""Checkpoints, and what lies beside them, that cannot be used or are not what was saved."""

import json
import shutil

import jax
import numpy as np

from ambient_jax import evaluate
from ambient_jax.cli import report
from ambient_jax.data import bounds, rlds
from ambient_jax.data.normalizer import Normalizer
from ambient_jax.policy.policy import Policy
from ambient_jax.train import checkpoint, fine_tuning, metrics, trainer
from ambient_jax.train import config as config_lib
from ambient_jax.transforms import instructions
from experiments.table import cache as rollouts_cache

NORMALIZER = Normalizer(
    "bounds",
    {"action": np.zeros(2, np.float32), "observation/state": np.zeros(3, np.float32)},
    {"action": np.ones(2, np.float32), "observation/state": np.ones(3, np.float32)},
)


def _config(model="unet"):
    config = config_lib.default()
    config.data.sources.good = config_lib.source("good", "clean")
    config.data.sources.bad = config_lib.source("bad", "corrupt", sigma_min=0.3)
    config.model.name = model
    if model == "unet":
        config.model.update({"features": (8,), "blocks": 1, "groups": 2, "embed_dim": 16})
    return config


def _shapes(model="unet"):
    observation = {"state": jax.ShapeDtypeStruct((2, 3), np.float32)}
    return trainer.make_learner(_config(model), observation, 2, 2, None).shapes


def _run(b):
    """A workdir with checkpoints 10 and 20; nothing was trained."""
    made = b.path.parent / "two_checkpoints"
    if not made.exists():
        saver = checkpoint.Checkpointer(b.path.parent / "under_way" / "checkpoints")
        for step in (10, 20):
            state = jax.tree.map(lambda s: np.full(s.shape, step, s.dtype), _shapes())  # noqa: B023
            position = [{"step": step, "of": {"shards": 1}, "taken": {"0": [step, step]}}]
            assets = checkpoint.make_assets(_config(), NORMALIZER.to_json(), {"good": str(step)})
            saver.save(step, state, assets, position)
        saver.close()
        (b.path.parent / "under_way").rename(made)
    shutil.copytree(made, b.path / "run")
    return b.path / "run"


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _largest(item):
    """The file of an item that holds most of its arrays."""
    files = [p for p in (item / "d").rglob("*") if p.is_file()]
    return max(files, key=lambda p: (p.stat().st_size, p.name))


def _policy(run):
    return Policy.from_checkpoint(run)


def _restore(run):
    saver = checkpoint.Checkpointer(run / "checkpoints")
    try:
        return saver.restore(20, _shapes())
    finally:
        saver.close()


def _sound(run):
    saver = checkpoint.Checkpointer(run / "checkpoints")
    try:
        return saver.sound_step()
    finally:
        saver.close()


def _damaged(change, load=_policy, file="", item=""):
    """A case of step 20: ``change(path)`` of a file, or of the largest one of an item."""

    def act(b):
        run = _run(b)
        folder = run / "checkpoints" / "20"
        change(_largest(folder / item) if item else folder / file)
        load(run)

    return act


def _aged(change=lambda folder: None, load=_policy):
    """A case of checkpoints as versions before digests saved them: ``change(step 20's folder)``."""

    def act(b):
        run = _run(b)
        for step in (10, 20):
            folder = run / "checkpoints" / str(step)
            (folder / "digests.json").unlink()
            told = json.loads((folder / "_CHECKPOINT_METADATA").read_text())
            told["custom_metadata"] = {}
            (folder / "_CHECKPOINT_METADATA").write_text(json.dumps(told))
        change(folder)
        load(run)

    return act


def _assets(change):
    """Changes the assets of a folder: ``change(assets)`` returns them, or None if in place."""

    def apply(folder):
        path = folder / "assets" / "metadata"
        assets = json.loads(path.read_text())
        path.write_text(json.dumps(change(assets) or assets))

    return apply


def _without(*names):
    def change(assets):
        for name in names[:-1]:
            assets = assets[name]
        del assets[names[-1]]

    return _assets(change)


def _with(value, *names):
    def change(assets):
        for name in names[:-1]:
            assets = assets[name]
        assets[names[-1]] = value

    return _assets(change)


def _statistics(**changes):
    return _with(json.dumps(json.loads(NORMALIZER.to_json()) | changes), "statistics")


def _exchanged(*parts):
    def change(folder):
        one, other = folder.joinpath(*parts), folder.with_name("10").joinpath(*parts)
        one.rename(folder.parent / "between")
        other.rename(one)
        (folder.parent / "between").rename(other)

    return change


def _best(text):
    def act(b):
        (_run(b) / "best.json").write_text(text)
        checkpoint.find(b.path / "run" / "best")

    return act


def _both(change):
    def apply(folder):
        for step in ("10", "20"):
            change(_largest(folder.with_name(step) / "ema_params"))

    return apply


def _tune(run):
    fine_tuning.adopt({"another": {"kernel": np.zeros((3, 3), np.float32)}}, run)


def _other_family(run):
    saver = checkpoint.Checkpointer(run / "checkpoints")
    try:
        saver.restore(20, _shapes("transformer"))
    finally:
        saver.close()


def _written(name, text, act):
    def write(b):
        (b.path / name).write_text(text)
        act(b.path / name)

    return write


SOUND = r"; step 10 is sound: give .*checkpoints/10, or move the damaged one away"
CASES = {
    "bit of ema_params": (
        _damaged(_flip, item="ema_params"),
        rf"checkpoints/20 is damaged: ema_params/d/\w+ is not what was saved{SOUND}",
    ),
    "bit of ema_params, to fine-tune": (
        _damaged(_flip, _tune, item="ema_params"),
        "checkpoints/20 is damaged: ema_params/d/",
    ),
    "bit of ema_params, to evaluate": (
        _damaged(_flip, evaluate.evaluate, item="ema_params"),
        "checkpoints/20 is damaged: ema_params/d/",
    ),
    "bit of ema_params, to compare": (
        _damaged(_flip, evaluate.best, item="ema_params"),
        "checkpoints/20 is damaged: ema_params/d/",
    ),
    "bit of ema_params, by the step's path": (
        _damaged(_flip, lambda run: _policy(run / "checkpoints" / "20"), item="ema_params"),
        "checkpoints/20 is damaged: ema_params/d/",
    ),
    "bit of the state": (
        _damaged(_flip, _restore, item="state"),
        rf"damaged: state/d/\w+ is not what was saved{SOUND}",
    ),
    "bit of the data's position": (
        _damaged(
            lambda path: path.write_text(path.read_text().replace("20, 20", "20, 21")),
            _restore,
            "data/metadata",
        ),
        "damaged: data/metadata is not what was saved",
    ),
    "bit of the statistics": (
        _damaged(
            lambda path: path.write_text(path.read_text().replace("[1.0, 1.0]", "[1.0, 1.5]")),
            checkpoint.load_assets,
            "assets/metadata",
        ),
        "damaged: assets/metadata is not what was saved",
    ),
    "bit of an item's metadata": (
        _damaged(_flip, _restore, "state/_METADATA"),
        "damaged: state/_METADATA is not what was saved",
    ),
    "cut file of ema_params": (_damaged(_cut, item="ema_params"), "ema_params/d/.* is not what"),
    "cut manifest": (
        _damaged(_cut, file="ema_params/manifest.ocdbt"),
        "damaged: ema_params/manifest.ocdbt is not what was saved",
    ),
    "cut metadata of the step": (
        _damaged(_cut, file="_CHECKPOINT_METADATA"),
        "damaged: _CHECKPOINT_METADATA is not what was saved",
    ),
    "no metadata of the step": (
        _damaged(_remove, file="_CHECKPOINT_METADATA"),
        "damaged: _CHECKPOINT_METADATA is missing",
    ),
    "file gone": (_damaged(_remove, item="ema_params"), r"damaged: ema_params/d/\w+ is missing"),
    "file added": (
        _damaged(lambda path: path.write_text("more"), _restore, "state/more"),
        "damaged: state/more was not saved with it",
    ),
    "no state": (_damaged(_remove, _restore, "state"), f"damaged: state is missing{SOUND}"),
    "no ema_params": (_damaged(_remove, file="ema_params"), "damaged: ema_params is missing"),
    "no position of the data": (_damaged(_remove, _restore, "data"), "damaged: data is missing"),
    "no assets": (_damaged(_remove, file="assets"), "damaged: assets is missing"),
    "assets of another step": (
        _damaged(lambda folder: _exchanged("assets", "metadata")(folder.parent), file="assets"),
        "damaged: assets/metadata is not what was saved",
    ),
    "parameters of another step": (
        _damaged(lambda path: _exchanged("ema_params")(path.parent), file="ema_params"),
        "damaged: ema_params/.* (is missing|was not saved with it|is not what was saved)",
    ),
    "two steps exchanged": (
        _damaged(lambda path: _exchanged()(path.parent), file="assets"),
        "damaged: digests.json is that of step 10; no other step beside it is sound",
    ),
    "no digests": (_damaged(_remove, file="digests.json"), "damaged: digests.json is missing"),
    "cut digests": (_damaged(_cut, file="digests.json"), "damaged: digests.json cannot be read"),
    "digests are a list": (
        _damaged(lambda path: path.write_text("[]"), file="digests.json"),
        "damaged: digests.json cannot be read",
    ),
    "nothing sound to load": (
        _damaged(lambda path: _both(_flip)(path.parent), file="assets"),
        "no other step beside it is sound: bring back a copy, or train anew in another workdir",
    ),
    "nothing sound to resume from": (
        _damaged(lambda path: _both(_flip)(path.parent), _sound, "assets"),
        r"no checkpoint in .* is as it was saved \(step 20: ema_params.*; step 10: ema_params",
    ),
    "cut assets": (
        _damaged(_cut, file="assets/metadata"),
        "unreadable assets .*assets/metadata is",
    ),
    "assets are no text": (
        _damaged(lambda path: path.write_bytes(b"\xff\xfe{}"), file="assets/metadata"),
        "unreadable assets .*assets/metadata is no JSON",
    ),
    "old, cut assets": (
        _aged(lambda folder: _cut(folder / "assets" / "metadata")),
        rf"unreadable assets .*assets/metadata is no JSON.*{SOUND}",
    ),
    "old, assets are a list": (_aged(_assets(lambda a: [a])), "unreadable assets .* no 'format'"),
    "old, assets without config": (_aged(_without("config")), "no 'config' of type dict"),
    "old, config is a list": (_aged(_with([], "config")), "no 'config' of type dict"),
    "old, assets without statistics": (
        _aged(_without("statistics")),
        "no 'statistics' of type str",
    ),
    "old, assets without data": (
        _aged(_without("data"), checkpoint.load_assets),
        "no 'data' of type dict",
    ),
    "old, another format": (
        _aged(_with(2, "format")),
        "has format 2, expected 1: load it with the version that wrote it",
    ),
    "old, no state": (_aged(lambda f: _remove(f / "state"), _restore), "damaged: state is missing"),
    "old, no position of the data": (
        _aged(lambda folder: _remove(folder / "data"), _restore),
        "damaged: data is missing",
    ),
    "old, cut position of the data": (
        _aged(lambda folder: _cut(folder / "data" / "metadata"), _restore),
        "unreadable data .*data/metadata is no JSON",
    ),
    "old, no ema_params": (_aged(lambda f: _remove(f / "ema_params")), "ema_params is missing"),
    "old, cut manifest": (
        _aged(lambda folder: _cut(folder / "ema_params" / "manifest.ocdbt")),
        rf"unreadable ema_params \(.*\){SOUND}",
    ),
    "old, cut metadata of the state": (
        _aged(lambda folder: _cut(folder / "state" / "_METADATA"), _restore),
        "unreadable state or ema_params",
    ),
    "old, cut metadata of the step": (
        _aged(lambda folder: _cut(folder / "_CHECKPOINT_METADATA")),
        "damaged: _CHECKPOINT_METADATA cannot be read",
    ),
    "statistics are no normaliser": (
        _aged(_with('{"a": 1}', "statistics")),
        "assets/metadata makes no policy: not the JSON of a Normalizer",
    ),
    "statistics are no numbers": (
        _aged(_statistics(scale={"action": [1, float("nan")], "observation/state": [1, 1, 1]})),
        "makes no policy: not the JSON of a Normalizer .*action is not finite",
    ),
    "statistics of two shapes": (
        _aged(_statistics(scale={"action": [1], "observation/state": [1, 1, 1]})),
        r"action has shift \(2,\) and scale \(1,\)",
    ),
    "statistics without the action": (
        _aged(_statistics(shift={"observation/state": [0]}, scale={"observation/state": [1]})),
        "makes no policy: its statistics have no 'action'",
    ),
    "statistics without an observation": (
        _aged(_statistics(shift={"action": [0, 0]}, scale={"action": [1, 1]})),
        "makes no policy: its statistics have no 'observation/state'",
    ),
    "config without a horizon": (
        _aged(_without("config", "data", "horizon")),
        "assets/metadata makes no policy: its config has data.horizon = None, expected int",
    ),
    "config without sources": (
        _aged(_without("config", "data"), evaluate.evaluate),
        "its config has data.horizon = None",
    ),
    "config with a text as history": (
        _aged(_with("2", "config", "data", "history")),
        "its config has data.history = '2', expected int",
    ),
    "config with a horizon of 0": (
        _aged(_with(0, "config", "data", "horizon")),
        "its config has data.horizon = 0, expected at least 1",
    ),
    "config without a schedule": (
        _aged(_without("config", "schedule")),
        "its config has schedule.name = None, expected str",
    ),
    "config with a foreign schedule": (
        _aged(_with({"name": "karras"}, "config", "schedule")),
        "makes no policy: .*'karras'",
    ),
    "config with a foreign prediction": (
        _aged(_with("epsilon", "config", "objective", "prediction")),
        "makes no policy: objective.prediction is 'epsilon'.*did you mean 'eps'",
    ),
    "config with a foreign field of the model": (
        _aged(_with(3, "config", "model", "depth")),
        "makes no policy: option of model 'unet' is 'depth'",
    ),
    "config of another width": (
        _aged(_with([16], "config", "model", "features")),
        r"checkpoint .*20 has .* of shape .*, the config makes",
    ),
    "config of another family": (
        _aged(_with({"name": "transformer"}, "config", "model")),
        "checkpoint .*20 has .* the config makes",
    ),
    "run of another family": (
        _damaged(lambda path: None, _other_family),
        "checkpoint .*20 has .* the config makes .*another --workdir",
    ),
    "fine-tuning from another family": (
        _damaged(lambda path: None, _tune),
        r"no parameter of .*run has name and shape .* such as another/kernel \(3, 3\)",
    ),
    "best.json is a list": (_best("[20]"), "best.json does not name a step"),
    "best.json is cut": (_best('{"ste'), "best.json does not name a step"),
    "best.json names a text": (_best('{"step": "20"}'), "does not name a step .'20'."),
    "best.json names half a step": (_best('{"step": 19.5}'), "does not name a step .19.5."),
    "best.json names infinity": (_best('{"step": Infinity}'), "does not name a step .inf."),
    "best.json names a step that is gone": (_best('{"step": 5}'), "names step 5, whose .* is gone"),
    "a file for a workdir": (
        _written("run.txt", "", checkpoint.find),
        "no finished checkpoint at .*run.txt",
    ),
    "checkpoint of nobody": (
        lambda b: _policy("~nobodyhere/run"),
        "no finished checkpoint at .*~nobodyhere/run",
    ),
    "data of nobody": (
        lambda b: rlds.open_dataset("~nobodyhere/demo"),
        "~nobodyhere/demo does not",
    ),
    "bounds of nobody": (
        lambda b: bounds.read("~nobodyhere/bounds.parquet"),
        "no bounds file ~nobodyhere/bounds.parquet",
    ),
    "embeddings of nobody": (
        lambda b: instructions.load_instructions("~nobodyhere/told.npz"),
        "No instruction embeddings at ~nobodyhere/told.npz",
    ),
    "rollouts are a text": (
        _written("rollouts.npz", "no archive", rollouts_cache.load),
        "rollouts.npz holds no rollouts, or is damaged .*: delete it",
    ),
    "rollouts are empty": (_written("rollouts.npz", "", rollouts_cache.load), "holds no rollouts"),
    "report is a list": (_written("results.json", "[1]", report.read), "results.json is no report"),
    "report is cut": (_written("results.json", '{"a": ', report.read), "results.json is no report"),
}


def _rollouts_made_anew(b):
    (b.path / "rollouts.npz").write_text("no archive")
    assert not rollouts_cache.is_current(b.path / "rollouts.npz", {})


def _resumed(text, kept):
    """A case of metrics.jsonl: rows ``kept`` stay, and a copy of what was there if more is lost."""

    def act(b):
        (b.path / "metrics.jsonl").write_text(text)
        metrics.Writer(b.path, step=20).close()
        assert [row["step"] for row in metrics.read(b.path / "metrics.jsonl")] == kept
        aside = b.path / "metrics.jsonl.damaged"
        assert not aside.exists() or aside.read_text() == text

    return act


def _passed_over(run):
    assert _sound(run) == 10
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["10", "20.damaged"]
    assert _sound(run) == 10


def _saves_on(run):
    (run / "best.json").write_text("[]")
    saver = checkpoint.Checkpointer(run / "checkpoints", keep=1)
    state = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), _shapes())
    saver.save(30, state, checkpoint.make_assets(_config(), NORMALIZER.to_json()))
    saver.close()
    assert checkpoint.steps_in(run / "checkpoints") == [30]


WARNED = {
    "old policy": (_aged(), r"checkpoints/20 has no digests.json.*older version.*read unchecked"),
    "old run": (_aged(load=_restore), "checkpoints/20 has no digests.json"),
    "config with foreign fields": (
        _aged(_with(1, "config", "data", "colour")),
        "assets/metadata has fields that this version does not know.*: data.colour",
    ),
    "damaged step of a run": (
        _damaged(_flip, _passed_over, item="state"),
        r"20 is damaged \(state/d/.*\): it is 20.damaged now, and the run goes on from step 10",
    ),
    "empty step of a run": (
        _damaged(
            lambda folder: [_remove(p) for p in list(folder.parent.iterdir())],
            _passed_over,
            "assets",
        ),
        r"20 is damaged \(assets is missing\): it is 20.damaged now",
    ),
    "best.json that is no record, to a run": (
        _damaged(lambda path: None, _saves_on),
        "best.json does not name a step",
    ),
    "metrics, last row cut": (
        _resumed('{"step": 10}\n{"step": 20}\n{"st', [10, 20]),
        "metrics.jsonl line 3 is cut short and is dropped",
    ),
    "metrics, row cut in between": (
        _resumed('{"step": 10}\n{"st\n{"step": 20}\n{"step": 30}\n', [10, 20]),
        "metrics.jsonl has lines that are no rows: .*metrics.jsonl.damaged keeps it",
    ),
    "metrics, row without step": (
        _resumed('{"loss": 1.0}\n[1]\n{"step": "a"}\n{"step": 20}\n', [20]),
        "metrics.jsonl line 2 has no step and is dropped",
    ),
    "rollouts that are no archive": (_rollouts_made_anew, "rollouts.npz .*: it is made anew"),
}
