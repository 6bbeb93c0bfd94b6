"""The last step of an episode: by RLDS's definition it has an observation and no action.

What stands there as its action is a filler, often zeros, and no truth to train on; but many
converters set ``is_last`` on a step whose action is real. ``rlds.open_dataset(last_step=)`` drops
it or keeps it; this module finds what looks wrong either way.
"""

from __future__ import annotations

import numpy as np

CHOICES = ("drop", "keep")


class Ends:
    """Looks at the last actions of a source's episodes: are they fillers?

    Args:
      source: see ``source.Source``.
    """

    def __init__(self, source):
        self._dropped, self._displacements = source.last_step == "drop", source.displacements
        self._first = self._alike = None
        self.count = 0

    def add(self, action):
        """Takes the actions [L, D] of one more episode; returns its problems."""
        if len(action):
            self.count += 1
            self._first = action[-1] if self._first is None else self._first
            same = self._first.shape == action[-1].shape and action[-1] == self._first
            self._alike = same if self._alike is None else self._alike & same
        elif self._dropped:
            return [("last_step", _EMPTY)]
        return []

    def doubt(self, moments):
        """A line if all episodes end with one and the same action and others do not, else ""."""
        judged = moments.max > moments.min
        if self._displacements is not None and self._displacements.any():
            judged &= self._displacements  # a gripper may well end as it always does
        if not self._dropped or self.count < 2 or not judged.any():
            return ""
        if not self._alike[judged].all():
            return ""
        return (
            f"all {self.count} episodes end with the same action "
            f"{np.round(self._first, 4).tolist()}, as fillers do: if it is one, set is_last in the "
            "data, or cut it off; if it is real, set last_step='keep'"
        )


_EMPTY = (
    "its only step is flagged is_last, so its action is a filler: leave the episode out, or set "
    "last_step='keep' if that action is real"
)


def problems(flags: np.ndarray) -> list[tuple[str, str]]:
    """A problem where ``is_last`` is set on some of an episode's steps but the last."""
    marked = np.flatnonzero(flags)
    if not marked.size:
        return []
    return [
        (
            "last_step",
            f"is_last is set at step {marked[0]}, in the middle of the episode: chunks reach "
            "across it; if episodes were joined there, split them",
        )
    ]
