"""The experiments: policies, rollouts and reports."""

from ambient_jax.train import host_memory

host_memory.keep_freed_memory()  # must run before an import starts a thread
