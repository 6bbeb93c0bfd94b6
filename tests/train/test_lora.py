"""Low-rank adapters: the gradients of the sum, the base untouched, and runs as without them."""

import contextlib
import dataclasses
import importlib.util
import pathlib
import signal

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from ambient_jax.policy.policy import Policy
from ambient_jax.train import checkpoint, fine_tuning, lora, parts, sweep, trainer
from ambient_jax.train import config as config_lib

_SPEC = importlib.util.spec_from_file_location(
    "worker_module", pathlib.Path(__file__).parent / "worker.py"
)
worker_module = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(worker_module)

RANK = {"train.lora.rank": 2, "train.lora.whole": ("backbone/out/*",)}
FEW = {"train.steps": 6, "train.warmup": 0, "train.checkpoint_every": 3, "train.log_every": 1}
ROWS, H, D = 64, 4, 3


def _bits(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def _params(dtype=jnp.float32):
    shapes = {
        "backbone": {
            "dense": {"kernel": (5, 7), "bias": (7,)},
            "conv": {"kernel": (3, 7, 6)},
            "out": {"kernel": (6, 2), "bias": (2,)},
        },
        "encoder": {"hidden": {"kernel": (4, 5)}},
    }
    draw = lambda shape: np.random.default_rng(sum(shape)).normal(size=shape)  # noqa: E731
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    return jax.tree.map(lambda s: jnp.asarray(draw(s), dtype), shapes, is_leaf=is_shape)


def _apply(params, x):
    """A network of all its parameters, x [B, 3, 4]."""
    net = params["backbone"]
    h = jnp.tanh(x @ params["encoder"]["hidden"]["kernel"])
    h = jnp.tanh(h @ net["dense"]["kernel"] + net["dense"]["bias"])
    h = jnp.tanh(jnp.einsum("bki,kio->bo", h, net["conv"]["kernel"]))
    return h @ net["out"]["kernel"] + net["out"]["bias"]


def test_gradients_are_those_of_the_sum_by_the_chain_rule():
    with jax.enable_x64(True):
        base = _params(jnp.float64)
        adapters = lora.Lora(2, 3.0, whole=("backbone/out/*",))
        trained = adapters.adapters(base, jax.random.key(0))
        assert set(trained) == {"backbone"} and set(trained["backbone"]["dense"]) == {"kernel"}
        rng = np.random.default_rng(1)
        x = rng.normal(size=(9, 3, 4))
        loss = lambda params: jnp.sum(_apply(params, x) ** 3)  # noqa: E731
        trained = jax.tree.map(lambda p: np.asarray(p) + rng.normal(size=p.shape), trained)

        @jax.jit
        def gradients(trained):
            of_adapters = jax.grad(lambda t: loss(adapters.merge(base, t)))(trained)
            return of_adapters, jax.grad(loss)(adapters.merge(base, trained))

        found, whole = (tree["backbone"] for tree in jax.device_get(gradients(trained)))
        for name in ("dense", "conv"):
            pair = trained["backbone"][name]["kernel"]
            kernel = whole[name]["kernel"].reshape(-1, whole[name]["kernel"].shape[-1])
            mine = found[name]["kernel"]
            options = dict(rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(mine["a"], 1.5 * kernel @ pair["b"].T, **options)
            np.testing.assert_allclose(mine["b"], 1.5 * pair["a"].T @ kernel, **options)
        for name in ("kernel", "bias"):
            np.testing.assert_allclose(found["out"][name]["delta"], whole["out"][name], rtol=1e-12)


def test_the_sum_is_that_of_its_formula_and_starts_at_the_base():
    base = _params()
    adapters = lora.Lora(2, 4.0, ("*/conv/kernel", "encoder/*"), ("backbone/dense/bias",))
    trained = adapters.adapters(base, jax.random.key(0))
    _bits(adapters.merge(base, trained), base)
    # x @ A is as large as x.
    wide = lora.Lora(8).adapters({"backbone": {"kernel": jnp.zeros((400, 64))}}, jax.random.key(0))
    np.testing.assert_allclose(jnp.std(wide["backbone"]["kernel"]["a"]) * 20, 1, rtol=0.05)
    pair = trained["backbone"]["conv"]["kernel"]
    pair["b"] = jnp.asarray(np.random.default_rng(0).normal(size=pair["b"].shape), jnp.float32)
    trained["backbone"]["dense"]["bias"]["delta"] = jnp.full(7, 0.5)
    merged = jax.jit(adapters.merge)(base, trained)
    expected = base["backbone"]["conv"]["kernel"] + 2 * (pair["a"] @ pair["b"]).reshape(3, 7, 6)
    np.testing.assert_allclose(merged["backbone"]["conv"]["kernel"], expected, rtol=1e-5)
    _bits(merged["backbone"]["dense"]["bias"], base["backbone"]["dense"]["bias"] + 0.5)
    _bits(merged["backbone"]["out"], base["backbone"]["out"])
    x = jnp.ones((2, 3, 4))
    assert np.abs(_apply(merged, x) - _apply(base, x)).max() > 1e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(rank=2, kernels=("backbone/dens/*",)), "lora.kernels has 'backbone/dens/.', which m"),
        (dict(rank=2, whole=("head/*",)), "lora.whole has 'head/.', which matches no parameter of"),
        (dict(rank=2, kernels=("*/bias",)), r"kernels matches backbone/dense/bias \(7,\), expect"),
        (dict(rank=5, kernels=("*/dense/kernel",)), r"rank is 5, .* less than the \(5, 7\) rows"),
        (dict(rank=64), "rank is 64, expected less than the rows and columns of at least one ker"),
    ],
)
def test_what_fits_no_parameter_is_said_in_one_line(fields, message):
    with pytest.raises(ValueError, match=message) as error:
        lora.Lora(**fields).kinds(_params())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": -1}, "config.train.lora.rank is -1, expected a whole number at least 0|at least"),
        ({"rank": 2.0}, "config.train.lora.rank is 2.0 .float., expected int"),
        ({"rank": 2, "alpha": 0.0}, "config.train.lora.alpha is 0.0, expected above 0"),
        ({"rank": 2, "kernels": "backbone/*"}, "config.train.lora.kernels is 'backbone/.' .str."),
        ({"kernels": ("backbone/*",)}, "config.train.lora.kernels is .* and rank 0, expected a ra"),
        ({"ranks": 2}, "config.train.lora.ranks is no field .*did you mean 'rank'"),
    ],
)
def test_fields_out_of_range_are_refused(toy_data, changes, message):
    config = worker_module.config_for({"data": toy_data})
    with config.train.lora.unlocked(), config.train.lora.ignore_type():
        config.train.lora.update(changes)
    with pytest.raises(ValueError, match=message):
        config_lib.check(config)


def _task(shift):
    """A batch whose actions are a function of the observation, which ``shift`` changes."""
    rng = np.random.default_rng(0)
    state = rng.normal(size=(ROWS, 2, 3)).astype(np.float32)
    return {
        "observation": {"state": state},
        "action": np.repeat(np.tanh(shift * state[:, -1:]), H, axis=1),
        "mask": np.ones((ROWS, H), bool),
        "id": np.zeros((ROWS, 3), np.int32),
        "source": np.zeros(ROWS, np.int32),
        "sigma": np.linspace(0.05, 0.95, ROWS, dtype=np.float32),
        "sigma_min": np.zeros(ROWS, np.float32),
        "sigma_max": np.ones(ROWS, np.float32),
    }


def _learner(**fields):
    config = config_lib.default()
    model = {"name": "transformer", "width": 16, "depth": 1, "heads": 2}
    config.model = ml_collections.ConfigDict(model)
    config.data.horizon, config.policy.execute = H, H
    config.train.update(dict(steps=80, warmup=0, learning_rate=1e-2, ema=0.9, **fields))
    observation = {"state": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
    return config, parts.make_learner(config, observation, D, 1, None)


def _train(learner, state, batch, steps=80):
    step, key = jax.jit(learner.train_step), jax.random.key(3)
    losses = []
    for _ in range(steps):
        before = state.sums.bin_loss.sum()
        state = step(state, batch, key)
        losses.append(float(state.sums.bin_loss.sum() - before) / ROWS)
    return state, np.mean(losses[:10]), np.mean(losses[-10:])


def test_adapters_learn_a_shifted_task_and_the_base_stays():
    _, learner = _learner()
    base, first, last = _train(learner, learner.create(jax.random.key(0)), _task(1.0))
    assert last < 0.5 * first
    base = jax.tree.map(np.asarray, base.params)
    config, learner = _learner(lora={"rank": 4})
    state = learner.create(jax.random.key(1))
    # Two moments of the adapters and the optimizer's two counts; the base has none.
    size = lora.sizes(state.params["lora"])
    assert lora.sizes(state.opt_state) == 2 * size + 2 < lora.sizes(base)
    state = state.replace(params=state.params | {"base": base}, ema_params=base)
    state, first, last = _train(learner, state, _task(-1.0))
    assert last < 0.5 * first
    _bits(state.params["base"], base)
    adapters = lora.of(config.train)
    _bits(state.ema_params["encoder"], base["encoder"])
    merged = adapters.merge(base, state.params["lora"])
    assert jax.tree.structure(merged) == jax.tree.structure(state.ema_params)
    now, average, then = (t["backbone"]["film"]["kernel"] for t in (merged, state.ema_params, base))
    assert np.abs(now - average).max() < 0.2 * np.abs(now - then).max()


def test_micro_batches_give_the_gradients_of_the_batch():
    states = []
    for accumulation in (1, 4):
        _, learner = _learner(lora={"rank": 4}, accumulation=accumulation)
        states.append(_train(learner, learner.create(jax.random.key(1)), _task(1.0), 3)[0])
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)  # noqa: E731
    jax.tree.map(close, states[0].params, states[1].params)


@pytest.fixture(scope="module")
def base(toy_data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("base") / "run"
    trainer.train(worker_module.config_for({"data": toy_data, "changes": FEW}), workdir)
    return workdir


def _tuned(toy_data, base, **more):
    changes = FEW | RANK | {"train.init_from": str(base), "train.learning_rate": 1e-2}
    return {"data": {"good": toy_data["bad"]}, "changes": changes | more}


@pytest.mark.slow
def test_a_run_starts_at_its_base_and_leaves_a_policy_like_any_other(
    toy_data, base, tmp_path, caplog
):
    config = worker_module.config_for(_tuned(toy_data, base, **{"train.ema": 0.0}))
    learner = trainer.assemble(config, None)
    state = fine_tuning.initial(config, learner.create, jax.random.key(1))
    saved = checkpoint.load_policy_assets(base)["params"]
    network = lora.of(config.train).merge(state.params["base"], state.params["lora"])
    _bits(network, saved)
    _bits(state.ema_params, saved)

    trainer.train(config, tmp_path / "run")
    policy = Policy.from_checkpoint(tmp_path / "run")
    with contextlib.closing(checkpoint.Checkpointer(tmp_path / "run" / "checkpoints")) as saver:
        state, _ = saver.restore(6, learner.shapes)
    _bits(state.params["base"], saved)
    merged = lora.of(config.train).merge(state.params["base"], state.params["lora"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), policy.params, merged)
    published = Policy.from_checkpoint(tmp_path / "run" / "policy")
    _bits(policy.params, published.params)
    kernel = lambda p: np.asarray(p["backbone"]["out"]["kernel"])  # noqa: E731
    assert np.abs(kernel(policy.params) - kernel(saved)).max() > 1e-3

    # Another run may start from it.
    again = worker_module.config_for(_tuned(toy_data, tmp_path / "run"))
    state = fine_tuning.initial(again, learner.create, jax.random.key(1))
    _bits(state.params["base"], policy.params)
    # Adapters of another rank are another run.
    other = worker_module.config_for(_tuned(toy_data, base, **{"train.lora.rank": 1}))
    with pytest.raises(ValueError, match="holds a run with train.ema|train.lora.rank"):
        trainer.train(other, tmp_path / "run")


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_numbers_whole_or_split(toy_data, base, tmp_path, worker):
    job = _tuned(toy_data, base)
    files = {name: str(tmp_path / f"{name}.npz") for name in ("whole", "split")}
    whole = job | {"workdir": str(tmp_path / "whole"), "params": files["whole"]}
    running = worker(whole, 1)
    killed = job | {"workdir": str(tmp_path / "killed")}
    worker(killed | {"kill": ["step", 5]})(-signal.SIGKILL)
    running()
    worker(killed)()
    rows = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "killed")]
    assert rows[0] == rows[1]
    split = job | {"workdir": str(tmp_path / "split"), "params": files["split"]}
    split["changes"] = split["changes"] | {"train.fsdp": True, "train.accumulation": 2}
    worker(split, 4)()
    first, second = (dict(np.load(files[name])) for name in ("whole", "split"))
    for name, expected in first.items():
        error = np.linalg.norm(second[name] - expected) / np.linalg.norm(expected)
        assert error <= 1e-5, (name, error)


@pytest.mark.slow
def test_policies_of_a_sweep_are_those_of_runs_of_their_own(toy_data, base, tmp_path):
    config = worker_module.config_for(_tuned(toy_data, base))
    configs = {}
    for seed in (0, 1):
        configs[f"seed_{seed}"] = config.copy_and_resolve_references()
        configs[f"seed_{seed}"].seed = seed
    sweep.train(configs, tmp_path / "sweep")
    trainer.train(configs["seed_1"], tmp_path / "alone")
    params = [
        checkpoint.load_policy_assets(path)["params"]
        for path in (tmp_path / "sweep" / "seed_1", tmp_path / "alone")
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *params)


def test_adapters_need_a_base_that_has_all_that_they_do_not_train(toy_data, base, tmp_path):
    job = _tuned(toy_data, base)
    config = worker_module.config_for(job)
    config.train.init_from = ""
    with pytest.raises(ValueError, match="rank is 2 and config.train.init_from is empty: adapters"):
        fine_tuning.check_base(config, [tmp_path])
    saved = checkpoint.load_policy_assets(base)["params"]
    new = jax.tree.map(np.copy, saved)
    new["backbone"]["out"]["kernel"] = np.zeros((8, 5), np.float32)
    adapters = lora.of(config.train)
    adopted = fine_tuning.adopt(new, base, adapters)
    assert adopted["backbone"]["out"]["kernel"].shape == (8, 5)
    with pytest.raises(ValueError, match="init_from has no backbone/out/kernel of this model's"):
        fine_tuning.adopt(new, base, dataclasses.replace(adapters, whole=()))
