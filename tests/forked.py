"""Processes of their own that need not import the trainer: a server that has done so forks them.

The imports take longer than what most of these processes do. The server has no JAX backend, so each
process makes its own, with its own devices.
"""

import atexit
import contextlib
import functools
import multiprocessing
import os
import sys
import tempfile

PRELOADED = ["ambient_jax.train.trainer", "ambient_jax.train.sweep", "ambient_jax.publish.folder"]


class Process:
    """``function(*args)`` in a process with these variables, whose output is a file."""

    def __init__(self, function, *args, environment):
        # A file, not a pipe: a process whose pipe nobody reads stops when it is full.
        self._output = tempfile.NamedTemporaryFile("r", suffix=".out")  # noqa: SIM115
        begin = (self._output.name, dict(environment), function, args)
        self._process = _server(environment["PYTHONPATH"]).Process(target=_run, args=begin)
        self._process.start()

    def poll(self):
        """Returns the exit code, that of a signal as a negative number; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout):
        """Waits for its end; raises TimeoutError."""
        self._process.join(timeout)
        if self.poll() is None:
            raise TimeoutError(f"the process has not ended within {timeout} s")

    def kill(self):
        """Kills it if it runs."""
        self._process.kill()
        self._process.join()

    def close(self):
        """Returns its output, which is then gone."""
        with self._output as file:
            return file.read()


@functools.cache
def _server(path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with _variables({"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}):
        multiprocessing.forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _variables(changed):
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    yield
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def _run(output, environment, function, args):
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    import jax

    jax.config.update("jax_platforms", environment["JAX_PLATFORMS"])
    code = 0
    try:
        function(*args)
    except SystemExit as error:
        code = error.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        atexit._run_exitfuncs()  # a fork's end does not
    sys.exit(code)
