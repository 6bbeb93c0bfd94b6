"""The common form, with a wait for each file and, if asked for, the death of its process."""

import os
import signal
import time

from ambient_jax.open_x.source import OpenXFormat, OpenXSource

NAME = f"{__name__}:SlowFormat"


class SlowFormat(OpenXFormat):
    def open(self, *arguments, **options):
        source = super().open(*arguments, **options)
        source.__class__ = SlowSource
        return source


class SlowSource(OpenXSource):
    def examine(self, shard_index):
        time.sleep(float(os.environ.get("TEST_SLOW", "0")))
        if os.environ.get("TEST_DEADLY") == str(shard_index):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().examine(shard_index)
