"""Low-rank adapters for fine-tuning: of a kernel W [..., m, n] only A and B are trained,

    W + alpha / rank * A @ B,    A [m', rank], B [rank, n],    m' = m * (taps of a convolution)

(LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685). B starts at zero, so that a run starts as
its base. The sum is made inside of the loss: every network works unchanged, and solves and exports
at the base's speed. The parameters of such a run are ``{"base": ..., "lora": ...}``. The first is
not trained. The second has, below the names of an adapted kernel, "a" and "b", or for what is
trained whole, "delta", a difference to the base. The moving average is that of the sum, so that a
policy is the same as without adapters.
"""

import dataclasses
import fnmatch
import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from ambient_jax import _checks

BASE, LORA = "base", "lora"
_DENOISER = "backbone/*"


@dataclasses.dataclass(frozen=True)
class Lora:
    """Adapters of a network.

    Attributes:
      rank: columns of A, at least 1.
      alpha: their sum is multiplied by alpha / rank.
      kernels: patterns of the adapted parameters, such as ``backbone/attention_*/kernel`` (``*``
        also matches ``/``); (): every kernel of the denoiser with more rows and columns than rank.
      whole: patterns of parameters that are trained as they are, such as ``backbone/out/*``.
    """

    rank: int
    alpha: float = 16.0
    kernels: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()

    def kinds(self, params: Any) -> dict[str, str]:
        """Returns "a", "adapted", or "whole" of every trained parameter (or shape) by its name.

        Raises:
          ValueError: a pattern matches no parameter, or an adapted one is no kernel, or has no more
            rows or columns than the rank.
        """
        shapes = {name: leaf.shape for name, leaf in _by_name(params).items()}
        whole = _matching("whole", self.whole, shapes)
        kernels = {n: s for n, s in shapes.items() if n.endswith("kernel") and len(s) >= 2}
        if self.kernels:
            adapted = _matching("kernels", self.kernels, shapes)
            for name in sorted(adapted - whole):
                self._check(name, shapes[name], kernels)
        else:
            denoiser = [n for n in kernels if fnmatch.fnmatchcase(n, _DENOISER)]
            adapted = {n for n in denoiser if self.rank < min(_matrix(kernels[n]))}
            if not adapted:
                sizes = ", ".join(f"{n} {_matrix(kernels[n])}" for n in denoiser[:3])
                raise ValueError(
                    f"config.train.lora.rank is {self.rank}, expected less than the rows and "
                    f"columns of at least one kernel of the denoiser ({sizes})"
                )
        return {n: "whole" if n in whole else "adapted" for n in shapes if n in whole | adapted}

    def _check(self, name, shape, kernels):
        if name not in kernels:
            near = _checks.nearest(name, kernels)
            raise ValueError(
                f"config.train.lora.kernels matches {name} {tuple(shape)}, expected kernels, of "
                f"two or more dimensions: config.train.lora.whole trains others{near}"
            )
        if self.rank >= min(_matrix(shape)):
            raise ValueError(
                f"config.train.lora.rank is {self.rank}, expected less than the {_matrix(shape)} "
                f"rows and columns of {name}: lower it, or name {name} in config.train.lora.whole"
            )

    def adapters(self, params: Any, key: jax.Array) -> dict[str, Any]:
        """Returns new adapters of parameters, whose sum is zero. Raises ``kinds``' ValueErrors."""
        tree: dict[str, Any] = {}
        leaves = _by_name(params)
        for i, (name, kind) in enumerate(self.kinds(params).items()):
            leaf = leaves[name]
            if kind == "whole":
                new = {"delta": jnp.zeros_like(leaf)}
            else:
                rows, columns = _matrix(leaf.shape)
                a = jax.random.normal(jax.random.fold_in(key, i), (rows, self.rank), leaf.dtype)
                # Each number of x @ A is as large as those of x.
                new = {"a": a / math.sqrt(rows), "b": jnp.zeros((self.rank, columns), leaf.dtype)}
            _put(tree, name.split("/"), new)
        return tree

    def merge(self, base: Any, adapters: Any) -> Any:
        """Returns the network's parameters: the base plus what the adapters add."""
        if not isinstance(base, dict):
            if "delta" in adapters:
                return base + adapters["delta"]
            product = jnp.matmul(adapters["a"], adapters["b"], precision="highest")
            return base + (self.alpha / self.rank * product).reshape(base.shape)
        merged = {name: self.merge(base[name], below) for name, below in adapters.items()}
        return {name: merged.get(name, leaf) for name, leaf in base.items()}

    def check_new(self, names: list[str], params: Any) -> None:
        """Raises ValueError if parameters that the base lacks would stay at their random start."""
        kinds = self.kinds(params)
        if left := [name for name in names if kinds.get(name) != "whole"]:
            raise ValueError(
                f"config.train.init_from has no {', '.join(left[:4])}{', ...' * (len(left) > 4)} "
                "of this model's shape, and adapters of random numbers are no fine-tuning: train "
                f"them whole, config.train.lora.whole = {tuple(left[:4])}, or keep the base's model"
            )


def of(train: ml_collections.ConfigDict) -> Lora | None:
    """Returns the adapters of a config's train section; None without a rank. Raises ValueError for
    fields out of range."""
    section = train.lora
    _checks.number("config.train.lora.rank", section.rank, 0, whole=True)
    _checks.number("config.train.lora.alpha", section.alpha, 0, above=True, below=True)
    for name in ("kernels", "whole"):
        _checks.names(f"config.train.lora.{name}", section[name])
        if section[name] and not section.rank:
            raise ValueError(
                f"config.train.lora.{name} is {section[name]} and rank 0, expected a rank of at "
                "least 1: nothing is adapted without one"
            )
    if not section.rank:
        return None
    return Lora(section.rank, section.alpha, tuple(section.kernels), tuple(section.whole))


def sizes(adapters: Any) -> int:
    """Returns the number of trained parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(adapters))


def _matrix(shape):
    """Returns rows and columns of a kernel [..., m, n], whose taps are rows."""
    return math.prod(shape[:-1]), shape[-1]


def _by_name(tree):
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(str(k.key) for k in path): leaf for path, leaf in flat}


def _matching(field, patterns, names):
    found = set()
    for pattern in patterns:
        matched = {name for name in names if fnmatch.fnmatchcase(name, pattern)}
        if not matched:
            raise ValueError(
                f"config.train.lora.{field} has {pattern!r}, which matches no parameter of the "
                f"model: expected a pattern of names such as {next(iter(names))}"
                f"{_checks.nearest(pattern, names)}"
            )
        found |= matched
    return found


def _put(tree, path, value):
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value
