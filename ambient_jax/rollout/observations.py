"""Joins an environment's observation and action spaces to a policy's observations and actions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from absl import logging
from gymnasium import spaces

from ambient_jax import _checks
from ambient_jax.transforms.augment import MASK
from ambient_jax.transforms.steps import IS_CLEAN

_BOX = ""  # the name of an observation that has none


@dataclasses.dataclass(frozen=True)
class Reader:
    """Turns batches of an environment's observations into a policy's, {name: [N, ...]}.

    ``fields`` are the environment's names by the policy's; "" for an observation without names.
    ``vectors`` are the policy's names of vectors, which are flattened to [N, d]. ``constant`` are
    observations that the environment does not have, [d] or a text.
    """

    fields: Mapping[str, str]
    vectors: tuple[str, ...] = ()
    constant: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, batch: Any) -> dict[str, Any]:
        leaves = dict(_leaves(batch, lambda value: isinstance(value, Mapping)))
        count = len(next(iter(leaves.values())))
        observation: dict[str, Any] = {}
        for name, field in self.fields.items():
            value = np.asarray(leaves[field])
            is_vector = name in self.vectors or value.ndim == 1
            observation[name] = value.reshape(count, -1) if is_vector else value
        for name, value in self.constant.items():
            is_text = isinstance(value, str)
            array = value if is_text else np.atleast_1d(np.asarray(value, np.float32))
            observation[name] = array if is_text else np.tile(array, (count, 1))
        return observation


def parse(text: str) -> dict[str, str]:
    """Reads "state=agent_pos,image_primary=pixels" as {policy's name: environment's name}. A name
    alone takes an observation without names; ValueError for another text."""
    fields: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, field = (p.strip() for p in part.partition("="))
        if not name or name in fields or (equals and not field):
            raise ValueError(
                f"observation is {text!r}, expected pairs policy's name=environment's name, such "
                "as state=agent_pos,image_primary=pixels, each name of the policy once"
            )
        fields[name] = field
    return fields


def connect(
    policy: Any,
    space: gymnasium.Space,
    fields: Mapping[str, str] | None = None,
    constant: Mapping[str, Any] | None = None,
) -> Reader:
    """Returns the reader of a space's observations for a policy; checks shapes and names.

    A Dict's names join those of the policy that are equal, nested ones as "outer/inner". A Box is
    the policy's only observation. ``fields`` {policy's name: environment's name} says otherwise.

    Raises:
      ValueError: a name is unknown, an observation is missing or has another shape.
    """
    offered = dict(_leaves(space, lambda s: isinstance(s, spaces.Dict)))
    constant = dict(constant or {})
    names = _names(policy)
    joined = dict(fields or {})
    for name, field in joined.items():
        if names is not None:
            _checks.one_of("the policy's observation", name, names)
        if field not in offered:
            what = "one observation without names" if _BOX in offered else ", ".join(offered)
            raise ValueError(
                f"observation {name!r} is taken from the environment's {field!r}, which it does "
                f"not have: it has {what}{_checks.nearest(field, offered)}"
            )
    free = [n for n in names or () if n not in joined and n not in constant]
    if _BOX in offered:
        wanted = [n for n in free if n != IS_CLEAN and not n.endswith(MASK)]
        if not joined and len(wanted) != 1:
            raise ValueError(
                f"the environment has one observation without names, the policy has "
                f"{', '.join(wanted) or 'unknown ones'}: say which one it is, observation=NAME"
            )
        joined = joined or {wanted[0]: _BOX}
    elif names is None:
        joined |= {name: name for name in offered if name not in joined}
    else:
        joined |= {name: name for name in free if name in offered}
    for field in joined.values():
        if not isinstance(offered[field], spaces.Box):
            raise ValueError(
                f"the environment's observation {field!r} is {offered[field]}, expected a Box of "
                "numbers"
            )
    cameras = [n for n in names or () if n.startswith("image_") and not n.endswith(MASK)]
    if unseen := [n for n in cameras if n not in joined and n not in constant]:
        logging.warning(
            "the policy sees no %s, of which the environment has none: observation='%s=NAME' "
            "joins another name",
            *(", ".join(unseen), unseen[0]),
        )
    reader = Reader(joined, tuple(getattr(policy, "dims", ())), constant)
    try:
        policy.check(reader(_zeros(space)), ())
    except ValueError as error:
        have = ", ".join(f"{n} {list(s.shape or ())}" if n else f"one of shape {s.shape}"
                         for n, s in offered.items())  # fmt: skip
        raise ValueError(
            f"the environment's observations ({have}) do not fit the policy: {error}; "
            "observation='policy_name=environment_name,...' joins other names"
        ) from error
    return reader


def check_actions(policy: Any, space: gymnasium.Space) -> None:
    """Raises ValueError unless a policy's actions have the form of an action space."""
    if not isinstance(space, spaces.Box):
        raise ValueError(f"the environment's actions are {space}, expected a Box: chunks are real")
    width = getattr(getattr(policy, "chain", None), "action_dim", None)
    if width is not None:
        check_width(width, space)


def check_width(width: int, space: gymnasium.Space) -> None:
    """Raises ValueError unless actions of D = ``width`` numbers fill an action of the space."""
    if width != int(np.prod(space.shape or (1,))):
        raise ValueError(
            f"the policy's actions have {width} numbers, those of the environment the shape "
            f"{list(space.shape or ())}: it is another environment, or needs a gymnasium wrapper"
        )


def _names(policy: Any) -> list[str] | None:
    """Returns the names of a policy's observations; None if it does not tell."""
    if hasattr(policy, "chain"):
        return list(policy.chain.inputs(1))
    return list(policy.dims) if hasattr(policy, "dims") else None


def _leaves(tree: Any, is_node: Any, prefix: str = "") -> Any:
    """Yields (name, leaf) of a nested space or batch."""
    if not is_node(tree):
        yield prefix, tree
        return
    for name, child in tree.items():
        yield from _leaves(child, is_node, f"{prefix}/{name}" if prefix else name)


def _zeros(space: gymnasium.Space) -> Any:
    """Returns a batch of one observation, of zeros where the space has numbers."""
    if isinstance(space, spaces.Dict):
        return {name: _zeros(child) for name, child in space.items()}
    return np.zeros((1, *(space.shape or ())), space.dtype if space.shape is not None else int)
