"""What makes a run of the tests short: programs that compile fast, an order for two processes."""

import importlib.util
import mmap
import os
import pathlib
import tempfile

_TESTS = pathlib.Path(__file__).parent
# The older way to make kernels: the program of a small network compiles in a third of the time.
_EMITTERS = "--xla_cpu_use_fusion_emitters=false"
# The files that take longest: two processes end together if the short ones are last.
_LONGEST = (
    *("docs/test_notebooks.py", "docs/test_snippets.py", "annotate/test_candidates.py"),
    *("annotate/test_classifier.py", "train/test_sweep.py", "train/test_parallel.py"),
    *("policy/test_solvers.py", "train/test_trainer.py", "train/test_step.py"),
    *("data/test_both_paths.py", "train/test_layout.py", "models/test_multimodal.py"),
    *("models/test_unet.py", "policy/test_policy.py", "test_extending.py", "policy/test_export.py"),
    *("models/test_convolution.py", "data/test_pipeline.py", "train/test_order.py"),
    *("test_mixing.py", "experiments/test_launch.py", "annotate/test_influence.py"),
    *("train/test_formats.py", "annotate/test_pairs.py", "annotate/test_command.py"),
    *("experiments/maze/test_table.py", "train/test_fine_tuning.py", "open_x/test_recorded.py"),
)


def set_environment():
    """Sets what JAX reads when it is imported, here and in the processes that this one starts."""
    # All of them share what they compile, which is most of their time.
    cache = pathlib.Path(tempfile.gettempdir()) / f"ambient-jax-tests-{os.getpid()}"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
    # Networks here are tiny: to optimise their programs takes longer than to run them as they are.
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    if _is_known(_EMITTERS):
        os.environ["XLA_FLAGS"] = f"{_EMITTERS} {os.environ.get('XLA_FLAGS', '')}".rstrip()


def _is_known(flag):
    """Whether jaxlib has a flag of XLA; an unknown one would end the process."""
    folder = pathlib.Path(importlib.util.find_spec("jaxlib").origin).parent
    for path in folder.glob("libjax_common*"):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(flag.strip("-").partition("=")[0].encode()) >= 0
    return False


def order(items):
    """Sorts tests by file, those of the longest files first."""
    ranks = {_TESTS / name: rank for rank, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))
