import subprocess
import sys

CODE = """
import resource, sys
import numpy as np
from ambient_jax.train import host_memory
if sys.argv[1] == "kept":
    assert host_memory.keep_freed_memory()
def touch():
    return float(np.ones(8 * 2**20).sum())  # 64 MiB
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(mode):
    done = subprocess.run(
        [sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_kept_memory_is_not_mapped_again():
    """Without it, each of the five arrays of 64 MiB is mapped anew."""
    assert _faults("kept") < 0.1 * _faults("default")
