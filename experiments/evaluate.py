"""``python -m ambient_jax.evaluate``, which takes the same flags."""

import runpy

if __name__ == "__main__":
    runpy.run_module("ambient_jax.evaluate", run_name="__main__", alter_sys=True)
