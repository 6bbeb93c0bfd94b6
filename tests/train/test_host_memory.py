import subprocess
import sys

CODE = """
import resource, sys
import threading
import numpy as np
if sys.argv[1] == "kept":
    import experiments
import pyarrow
def touch():
    return float(np.ones(8 * 2**20).sum())  # 64 MiB
def everywhere():
    for _ in range(3):
        thread = threading.Thread(target=touch)
        thread.start()
        thread.join()
    touch()
everywhere()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
everywhere()
everywhere()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(mode):
    done = subprocess.run(
        [sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_kept_memory_is_not_mapped_again():
    """Without it, each of the eight arrays of 64 MiB is mapped anew, whichever the thread."""
    assert _faults("kept") < 0.1 * _faults("default")
