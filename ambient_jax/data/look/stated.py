"""Whether the statistics that a data set states are those of its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ambient_jax.data.dataset import Dataset
from ambient_jax.data.files import first_line
from ambient_jax.data.look.cameras import short
from ambient_jax.data.look.fields import Numbers

# Share of the range, or of the deviation, that a stated number may be off: writers round, pool the
# statistics of episodes, and divide by n or n - 1.
_OFF = {"min": 1e-3, "max": 1e-3, "mean": 1e-2, "std": 1e-2}
_ROUNDING = 1e-5  # of the magnitude, where the range is far smaller


def differences(dataset: Dataset, measured: Mapping[str, Numbers], whole: bool) -> Iterator[str]:
    """Yields a line for each field whose stated statistics differ from those measured.

    ``whole`` says whether all episodes were measured; if not, there is nothing to compare.
    """
    try:
        stated = dict(dataset.stated())
    except (ValueError, OSError, TypeError, KeyError, AttributeError) as error:
        yield f"they cannot be read: {first_line(error)}"
        return
    for path, values in stated.items() if whole else ():
        field = measured.get(path)
        if field is not None and field.moments is not None:
            yield from _of_field(field, values)


def _of_field(field: Numbers, stated: Mapping[str, np.ndarray]) -> Iterator[str]:
    moments = field.moments
    assert moments is not None
    width = moments.max - moments.min
    size = np.maximum(np.abs(moments.min), np.abs(moments.max))
    wrong = []
    for name in (n for n in _OFF if n in stated):
        given, real = np.ravel(stated[name]), getattr(moments, name)
        if given.shape != real.shape:
            if real.size == field.size:  # else its numbers were measured as one
                path = short(field.path)
                yield f"{path} has {real.size} numbers, {name} is stated of {given.size}"
            return
        scale = moments.std if name in ("mean", "std") else width
        off = np.abs(given - real)
        beyond = ~(off <= _OFF[name] * scale + _ROUNDING * size)
        wrong += [(off[i] / max(scale[i], 1e-12), name, i) for i in np.flatnonzero(beyond)]
    if wrong:
        _, name, dim = max(wrong, key=lambda w: np.nan_to_num(w[0], nan=np.inf))
        more = f" (and {len(wrong) - 1} other numbers differ)" if len(wrong) > 1 else ""
        yield (
            f"{short(field.path)} [{field.name_of(int(dim))}]: {name} is stated as "
            f"{np.ravel(stated[name])[dim]:.6g}, measured {getattr(moments, name)[dim]:.6g}{more}"
        )
