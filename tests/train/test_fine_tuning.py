"""Maps to unit size of runs that go on, without training."""

import dataclasses

import numpy as np
import pytest

from ambient_jax import mixing
from ambient_jax.data import mixture as mixtures
from ambient_jax.data import normalizer
from ambient_jax.train import config as config_lib
from ambient_jax.train import fine_tuning


@pytest.fixture
def start(toy_data, tmp_path, monkeypatch):
    """``start(shrink, init_maps)``: (base maps, those of the new run, its own); the base's data
    had ``shrink`` times the range."""
    monkeypatch.setenv("AMBIENT_JAX_CACHE", str(tmp_path))

    def make(shrink, init_maps):
        config = config_lib.default()
        config.data.sources.good = config_lib.source(toy_data["good"], "clean")
        config.data.horizon = config.policy.execute = 4
        config.train.init_from, config.train.init_maps = "somewhere", init_maps
        mixture = mixtures.open_mixture(config.data, mixing.get("ambient"))
        own = mixture.normalizer
        scale = {n: v * np.float32(shrink) for n, v in own.scale.items()}
        base = dataclasses.replace(own, scale=scale)
        assets = {"statistics": base.to_json(), "config": config.to_dict()}
        monkeypatch.setattr(fine_tuning.checkpoint, "load_assets", lambda path: assets)
        monkeypatch.setattr(fine_tuning.loading, "load", lambda path: assets)
        resumed = fine_tuning.resumed(mixture, "own").normalizer
        assert resumed.to_json() == base.to_json()
        return base, fine_tuning.with_maps(config, mixture).normalizer, own

    return make


def test_the_base_maps_are_taken_and_the_range_is_told(start, caplog):
    base, found, own = start(0.25, "base")
    assert found.to_json() == base.to_json() != own.to_json()
    # Ends of the data are 1 in their own maps, and 1 / 0.25 in the base's.
    assert "beyond its range" in caplog.text and "action[0] -4 to 4" in caplog.text


def test_a_wider_base_has_nothing_to_tell(start, caplog):
    base, found, _ = start(2, "base")
    assert found.to_json() == base.to_json()
    assert "beyond" not in caplog.text


def test_new_maps_by_option(start):
    base, found, own = start(2, "data")
    assert found.to_json() == own.to_json() != base.to_json()


def test_a_normaliser_of_before_still_loads():
    text = '{"kind": "gaussian", "sources": [], "shift": {"action": [1]}, "scale": {"action": [2]}}'
    assert normalizer.Normalizer.from_json(text).normalize("action", np.float32([3])) == 1


def test_pretrained_networks_start_from_their_file_and_stay(tmp_path, monkeypatch):
    import jax
    import jax.numpy as jnp
    import ml_collections
    from safetensors.numpy import save_file

    from ambient_jax.models import pretrained
    from ambient_jax.publish import folder
    from ambient_jax.train import parts

    sizes = dict(width=4, depth=1, heads=1, patch=4, grid=2)
    rng = np.random.default_rng(0)
    make = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    arrays = {"patch_embed.proj.weight": make(4, 3, 4, 4), "patch_embed.proj.bias": make(4)}
    arrays |= {"cls_token": make(1, 1, 4), "pos_embed": make(1, 5, 4)}
    widths = {"norm1": (4,), "attn.qkv": (12, 4), "attn.proj": (4, 4), "norm2": (4,)}
    for name, shape in (widths | {"mlp.fc1": (16, 4), "mlp.fc2": (4, 16)}).items():
        arrays[f"blocks.0.{name}.weight"], arrays[f"blocks.0.{name}.bias"] = (
            make(*shape),
            make(shape[0]),
        )
    arrays |= {"norm.weight": make(4), "norm.bias": make(4)}
    file = tmp_path / "vit.safetensors"
    save_file(arrays, file)

    config = config_lib.default()
    monkeypatch.setenv("HOME", str(tmp_path))
    section = {"name": "vit", "weights": "~/vit.safetensors", **sizes}
    vision = {"pretrained": section, "keypoints": 2}
    encoder = {"name": "multimodal", "width": 4, "vision": vision}
    model = {"name": "unet", "features": (8,), "blocks": 1, "groups": 2, "encoder": encoder}
    config.model = ml_collections.ConfigDict(model)
    config.train.update(dict(warmup=0, steps=3))
    observation = {"image_front": jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.uint8)}
    learner = parts.make_learner(config, observation, 2, 1, None)
    state = fine_tuning.initial(config, learner.create, jax.random.key(0))
    network = state.params["encoder"]["image_front"][pretrained.NAME]
    np.testing.assert_array_equal(network["class"], arrays["cls_token"][0])
    rows = 4
    batch = {
        "observation": {"image_front": rng.integers(0, 256, (rows, 1, 8, 8, 3), np.uint8)},
        **{"action": make(rows, 16, 2), "mask": np.ones((rows, 16), bool)},
        **{"id": np.zeros((rows, 3), np.int32), "source": np.zeros(rows, np.int32)},
        **{"sigma": np.full(rows, 0.5, np.float32), "sigma_min": np.zeros(rows, np.float32)},
        "sigma_max": np.ones(rows, np.float32),
    }
    after = jax.jit(learner.train_step)(state, batch, jax.random.key(1))
    for tree in (after.params, after.ema_params):
        found = tree["encoder"]["image_front"][pretrained.NAME]
        jax.tree.map(np.testing.assert_array_equal, found, network)
    before, found = (t.params["encoder"]["out"]["kernel"] for t in (state, after))
    assert np.abs(found - before).max() > 0
    moments = sum(x.size for x in jax.tree.leaves(state.opt_state))
    whole, frozen = (sum(x.size for x in jax.tree.leaves(t)) for t in (state.params, network))
    assert moments == 2 * (whole - frozen) + 2  # and the optimizer's two counts

    # Bases without the network, with another one, and without a part of it.
    bases = {"without": {}, "other": jax.tree.map(lambda x: x + 1, network)}
    bases["part"] = {n: v for n, v in bases["other"].items() if n != "class"}
    content = {"step": 1, "config": {}, "statistics": "{}"}
    plain = {n: v for n, v in state.params["encoder"]["image_front"].items() if n != "pretrained"}
    plain = jax.tree.map(lambda x: x + 1, plain)
    for name, own in bases.items():
        image = plain | ({pretrained.NAME: own} if own else {})
        params = {"encoder": {"image_front": image}}
        folder.write(tmp_path / name, params, content, "")
        config.train.init_from = str(tmp_path / name)
        fine_tuning.check_base(config, [tmp_path])
        found = fine_tuning.initial(config, learner.create, jax.random.key(3)).params
        found = found["encoder"]["image_front"]
        want = plain | {pretrained.NAME: network | own}
        jax.tree.map(np.testing.assert_array_equal, found, want)

    vision["pretrained"]["weights"] = str(tmp_path / "gone.safetensors")
    config.model.encoder = encoder
    config.train.init_from = str(tmp_path / "other")  # which needs no file
    fine_tuning.check_base(config, [tmp_path])
    fine_tuning.initial(config, learner.create, jax.random.key(3))
    config.train.init_from = str(tmp_path / "without")
    with pytest.raises(FileNotFoundError, match="pretrained.weights is .*gone.safetensors, where"):
        fine_tuning.check_base(config, [tmp_path])
    config.train.init_from = ""
    with pytest.raises(FileNotFoundError, match="pretrained.weights is .*gone.safetensors, where"):
        fine_tuning.check_base(config, [tmp_path])
