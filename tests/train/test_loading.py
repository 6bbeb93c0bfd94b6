"""One policy by a path of any kind: what ``find`` names is what ``load`` loads."""

import jax
import numpy as np
import pytest

from ambient_jax.publish import hub
from ambient_jax.train import loading, publication
from tests.publish import made


def test_a_checkpoint_a_folder_and_an_address_are_the_same_policy(tmp_path, monkeypatch):
    run = made.workdir(tmp_path / "run")
    policy = publication.write(run)
    monkeypatch.setattr(hub, "pull", lambda address: policy)  # tests/publish/test_hub.py pulls
    step = str(run / "checkpoints" / str(made.STEP))
    expected = loading.load(run)
    places = {run: step, step: step, policy: str(policy), "hf://ann/mine@v1": "hf://ann/mine@v1"}
    for path, found in places.items():
        assert loading.find(path) == (found, made.STEP)
        loaded = loading.load(found)
        jax.tree.map(np.testing.assert_array_equal, loaded["params"], expected["params"])
        assert loaded["statistics"] == expected["statistics"]
        assert loaded["config"].to_dict() == expected["config"].to_dict()
    for find in (loading.find, loading.load):
        with pytest.raises(FileNotFoundError, match="no finished checkpoint .*, or a policy fold"):
            find(tmp_path / "elsewhere")
