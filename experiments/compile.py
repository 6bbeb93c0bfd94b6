"""``python -m ambient_jax.compile``, which takes the same flags."""

import runpy

if __name__ == "__main__":
    runpy.run_module("ambient_jax.compile", run_name="__main__", alter_sys=True)
