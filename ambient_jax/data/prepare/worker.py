"""A worker process of Beam's DirectRunner that ends soon after the process that started it.

Beam's own waits for ever for a parent that was killed by SIGKILL.
"""

import importlib
import logging
import os
import sys
import threading
import time

from absl import logging as absl_logging

_POLL = 1.0  # s between two looks for the parent


def end_with(parent: int) -> None:
    """Ends this process once the process with the number ``parent`` is gone."""

    def watch():
        while os.getppid() == parent:
            time.sleep(_POLL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Runs Beam's worker; the argument is the number of the parent."""
    end_with(int(sys.argv[1]))
    logging.disable(logging.WARNING)  # of optional packages that it tries to import
    sdk_worker_main = importlib.import_module("apache_beam.runners.worker.sdk_worker_main")
    logging.disable(logging.NOTSET)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    absl_logging.set_verbosity(absl_logging.ERROR)  # the parent has warned of each source
    sdk_worker_main.main(sys.argv[:1])


if __name__ == "__main__":
    main()
