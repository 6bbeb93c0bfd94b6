"""Sources whose observations and actions are read by name, without conversion."""

import numpy as np

from ambient_jax.data import chunk, storage
from ambient_jax.data.features import leaves
from ambient_jax.data.source import Format, Problem, Source
from ambient_jax.transforms.steps import IS_CLEAN


class RldsFormat(Format):
    """``config.data.observation``, ``action`` and ``delta`` of all sources.

    The observation "is_clean" is none of the data's: the library makes it from a source's role.
    """

    def __init__(self, config):
        self.told = IS_CLEAN in config.observation
        self.observation = tuple(name for name in config.observation if name != IS_CLEAN)
        self.action = config.action
        self.delta = config.get("delta")
        whole = isinstance(self.delta, tuple | list) and all(type(dim) is int for dim in self.delta)
        if self.delta is not None and (
            not whole or len(set(self.delta)) != len(self.delta) or min(self.delta, default=0) < 0
        ):
            raise ValueError(
                f"config.data.delta is {self.delta!r}, expected the numbers of the action's "
                "dimensions that are displacements, each once, such as (0, 1, 2), or () if none is"
            )

    def open(self, name, path, fields, transform=None):
        # A transform may read any field; without one, decode only the fields in use.
        keys = [f"steps/{self.action}", *(f"steps/observation/{n}" for n in self.observation)]
        keys = None if transform else keys
        options = {"keys": keys, "last_step": fields["last_step"]}
        data = storage.open_dataset(path, fields["split"], keys or (), **options)
        if self.told and f"steps/observation/{IS_CLEAN}" in leaves(data.features):
            raise ValueError(
                f"source {name!r} has an observation {IS_CLEAN!r} of its own, expected none: that "
                "name in config.data.observation stands for the source's role; rename the data's"
            )
        return RldsSource(data, name, self.observation, self.action, transform, self.delta or ())

    def check_placement(self, config, observed):
        if not self.observation:
            raise ValueError(
                "config.data.observation is empty, expected names under steps/observation"
            )

    def missing_delta(self, config):
        if config.padding != "hold" or self.delta is not None:
            return ""
        return (
            "config.data.padding is 'hold' and config.data.delta does not state which dimensions "
            "of the action are displacements: set it to (), none, for positions, to their numbers, "
            "such as (0, 1, 2), or padding to 'mask'"
        )


class RldsSource(Source):
    """A source that reads one ``storage.Dataset``; see ``Source`` for the arguments.

    ``name`` defaults to the data set's; ``delta`` are the dimensions of the action that are
    displacements.
    """

    def __init__(self, dataset, name="", observation=(), action="action", transform=None, delta=()):
        self.data, self.name = dataset, name or dataset.name
        self.observation, self.action, self.transform = tuple(observation), action, transform
        self.directory, self.in_order = dataset.directory, dataset.in_order
        self.last_step, self._delta = dataset.last_step, tuple(delta)

    @property
    def settings(self):
        return f"last_step {self.data.last_step}" if self.data.last_step else ""

    @property
    def fingerprint(self):
        return self.data.fingerprint

    @property
    def shard_lengths(self):
        return self.data.shard_lengths

    @property
    def episode_ids(self):
        return self.data.episode_ids

    def __len__(self):
        return len(self.data)

    def __getitem__(self, position):
        return self.data[position]

    def stream(self, shard_index, start=0):
        return self.data.stream(shard_index, start)

    def stated(self):
        if self.transform or self.last_step == "drop":
            return {}
        stored = self.data.stated()
        paths = {"action": self.action} | {f"observation/{n}": None for n in self.observation}
        keys = {field: f"steps/{path or field}" for field, path in paths.items()}
        return {field: stored[key] for field, key in keys.items() if key in stored}

    def shard_version(self, shard_index):
        return self.data.shard_version(shard_index)

    def examine(self, shard_index):
        for index, episode in self.stream(shard_index):
            yield index, episode, last_step_problems(episode, self.last_step == "drop")

    def rest(self, action_dim):
        return chunk.rest(self._delta, action_dim)


def last_step_problems(episode, dropped: bool) -> list[Problem]:
    """Returns a problem if ``is_last`` is set before the last step, which may be dropped."""
    flags = np.ravel(episode["steps"].get("is_last", ())).astype(bool)
    marked = np.flatnonzero(flags if dropped else flags[:-1])
    if not marked.size:
        return []
    text = (
        f"is_last is set at step {marked[0]}, in the middle of the episode: chunks reach across "
        "it; if episodes were joined there, split them"
    )
    return [("last_step", text)]
