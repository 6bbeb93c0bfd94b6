"""openpi's own client, unchanged and in an environment of its own, against the server.

``AMBIENT_JAX_OPENPI_PYTHON`` names a Python that has ``openpi-client`` (it needs numpy < 2);
without it, the test makes one with venv and pip.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from ambient_jax.serve.server import Options, running
from tests.serve import made

pytestmark = pytest.mark.slow
VARIABLE = "AMBIENT_JAX_OPENPI_PYTHON"
PACKAGES = ("openpi-client", "typing_extensions")  # which it imports but does not ask for
SCRIPT = """
import json, sys
import numpy as np
from openpi_client import image_tools
from openpi_client.websocket_client_policy import WebsocketClientPolicy

arrays = np.load(sys.argv[2])
client = WebsocketClientPolicy("127.0.0.1", int(sys.argv[1]), api_key="secret")
metadata = client.get_server_metadata()
observation = {"observation/state": arrays["state"], "goal": arrays["goal"]}
observation["image_wrist"] = image_tools.resize_with_pad(arrays["image_wrist"], 8, 6)
observation |= {"image_front": arrays["image_front"], "prompt": "open the drawer"}
answers = [client.infer({**observation, "seed": np.int64(s)}) for s in (1, 1, 2)]
try:
    client.infer({**observation, "goal": np.array([0, np.nan])})
except RuntimeError as error:
    refused = str(error)
client.reset()
again = client.infer({**observation, "seed": 1})
assert isinstance(again["actions"], np.ndarray), type(again["actions"])
assert np.__version__.startswith("1.")
chunks = [a["actions"].tolist() for a in (*answers, again)]
timing = [sorted(a["server_timing"]) + sorted(a["policy_timing"]) for a in answers]
print(json.dumps([metadata, chunks, refused, timing]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    if given := os.environ.get(VARIABLE):
        return given
    folder = tmp_path_factory.mktemp("openpi")
    made_one = subprocess.run(
        [sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True
    )
    pip = [str(folder / "bin" / "pip"), "install", "-q", *PACKAGES]
    installed = made_one.returncode == 0 and subprocess.run(pip, capture_output=True, text=True)
    if not installed or installed.returncode:
        reason = (installed or made_one).stderr.strip().splitlines()[-1:]
        pytest.skip(f"no Python with openpi-client ({VARIABLE}), and pip makes none: {reason}")
    return str(folder / "bin" / "python")


def test_the_stock_client_gets_the_chunks_of_the_policy(python, tmp_path):
    seen = made.observation(0, sees=True)
    arrays = {n: v for n, v in seen.items() if n != "instruction"}
    np.savez(tmp_path / "seen.npz", **arrays)
    policy = made.policy(1, True)
    whole = {n: v if isinstance(v, str) else v[None] for n, v in seen.items()}
    expected = [made.local(policy, whole, seed) for seed in (1, 1, 2, 1)]
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
    with running(policy, Options(port=0, max_batch=1, token="secret")) as port:
        done = subprocess.run(
            [python, "-c", SCRIPT, str(port), str(tmp_path / "seen.npz")],
            env=environment,
            capture_output=True,
            text=True,
        )
    assert not done.returncode, done.stderr
    metadata, chunks, refused, timing = json.loads(done.stdout)
    assert metadata["horizon"] == made.HORIZON and metadata["history"] == 1
    for chunk, one in zip(chunks, expected, strict=True):
        assert made.close(np.float32(chunk), one)
    assert "Error in inference server:\nobservation 'goal' of environment 0 is not" in refused
    assert {"infer_ms", "prev_total_ms"} <= set(timing[1])
