"""The experiments: what each trains, rolls out and reports."""

from ambient_jax.train import host_memory

host_memory.keep_freed_memory()  # before any other import starts a thread, see there
