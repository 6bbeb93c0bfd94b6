"""All benchmarks, one table each: ratios measured in one run.

python -m experiments.benchmarks             # all; .[bench] for PyTorch and TensorFlow
python -m experiments.benchmarks library     # or some: images library loader mixture sweep ...
"""

import importlib.util
import subprocess
import sys

from ambient_jax import _checks

_ALL = ("accelerator", "assembling", "images", "library", "loader", "mixture", "prepare")
_ALL += ("sweep", "train_step", "transformer_parts", "videos")
_OTHERS = {"images": "tensorflow", "train_step": "torch"}  # what they compare with
_OTHERS |= {"prepare": "apache_beam"}


def main(names: list[str]) -> None:
    for name in names:
        if name not in _ALL:
            near = _checks.nearest(name, _ALL)
            sys.exit(f"error: benchmark {name!r}, expected some of {', '.join(_ALL)}{near}")
    for name in names or _ALL:
        print(f"\n## {name}\n", flush=True)
        package = _OTHERS.get(name)
        if package and importlib.util.find_spec(package) is None:
            print(f"needs {package}: pip install -e '.[all,bench,beam]'")
            continue
        # A process each: one benchmark's memory and threads are no part of the next.
        ended = subprocess.run([sys.executable, "-m", f"experiments.benchmarks.{name}"]).returncode
        if ended:
            sys.exit(f"error: benchmark {name} ended with code {ended}, see above")


if __name__ == "__main__":
    main(sys.argv[1:])
