import os
import pathlib
import pickle
import subprocess
import sys
import tempfile

import pytest

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def command(tmp_path):
    """``command(data, cache, slow=0, deadly="", processes=2)`` starts the command on a section and
    returns its process, whose ``finish()`` waits and returns what it printed."""
    started = []

    def start(data, cache, slow=0.0, deadly="", processes=2, extra=()):
        (tmp_path / "section.pickle").write_bytes(pickle.dumps(data))
        (tmp_path / "config.py").write_text(
            "import pickle\n"
            "from ambient_jax.train import config as train_config\n"
            "def get_config():\n"
            "    config = train_config.default()\n"
            f"    config.data = pickle.load(open({str(tmp_path / 'section.pickle')!r}, 'rb'))\n"
            "    return config\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        environment |= {"TEST_SLOW": str(slow), "TEST_DEADLY": deadly}
        arguments = [f"--config={tmp_path / 'config.py'}", f"--cache={cache}"]
        line = [sys.executable, "-m", "ambient_jax.data.prepare", *arguments]
        line += [f"--processes={processes}", *extra]
        # A file, not a pipe: a process whose pipe nobody reads stops when it is full.
        output = tempfile.TemporaryFile("w+")
        process = subprocess.Popen(
            line, env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )

        def finish():
            process.wait()
            output.seek(0)
            return output.read()

        process.finish = finish
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
