"""A policy folder holds all that a policy needs to act, in files that travel.

* ``policy.safetensors``  parameters (moving average) by name, such as "backbone/Dense_0/kernel"
* ``policy.json``         config, chain of transforms with its statistics, fingerprints of the data,
  versions, and size and SHA-256 of the other files
* ``README.md``           model card (``card``)
* ``instructions.npz``    embeddings of instructions, for a policy that looks them up

It refers to nothing outside of itself. To read it takes safetensors, and no Orbax and no data.
Format of the tensors: https://huggingface.co/docs/safetensors.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections
import numpy as np
from etils import epath

from ambient_jax import _packages
from ambient_jax.data import paths

FORMAT = 1
ABOUT, TENSORS = "policy.json", "policy.safetensors"
CARD, EMBEDDINGS = "README.md", "instructions.npz"
FILES = (ABOUT, TENSORS, CARD, EMBEDDINGS)
_AGAIN = "copy or download the folder again, or write it with python -m ambient_jax.publish"
_TYPES = {"step": int, "config": dict, "chain": dict, "files": dict}
_NAMES = ("name", "step", "format")  # fields that may name code, as package.module:attribute


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a policy folder, complete or not."""
    folder = pathlib.Path(paths.expanded(path))
    return any((folder / name).is_file() for name in (ABOUT, TENSORS))


def about(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the content of ``policy.json``.

    Raises FileNotFoundError if it is missing, ValueError if it is damaged or of another format.
    """
    file = pathlib.Path(paths.expanded(path)) / ABOUT
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"policy folder {file.parent} has no {ABOUT}: {_AGAIN}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged, expected JSON ({_line(error)}): {_AGAIN}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if type(found) is int and found > FORMAT:
        raise ValueError(
            f"{file} has format {found}, expected {FORMAT}: update ambient_jax to version "
            f"{content.get('version')} or newer, which wrote it"
        )
    wrong = [n for n, t in _TYPES.items() if found != FORMAT or not isinstance(content.get(n), t)]
    if wrong:
        raise ValueError(
            f"{file} describes no policy of ambient_jax, expected format {FORMAT} with "
            f"{', '.join(_TYPES)} (wrong or missing: {', '.join(wrong)}): {_AGAIN}"
        )
    return content


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns ``config``, ``statistics`` (JSON of the chain), ``masks``, ``params`` and ``step`` of
    a folder, and the ``file`` that has all but the parameters. Checks every byte that it reads.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is damaged, swapped or cut short, or a parameter is not finite.
    """
    folder = pathlib.Path(paths.expanded(path)).absolute()
    content = about(folder)
    tensors, chain = _tensors(folder, content), content["chain"]
    try:
        params, config = nested(tensors), ml_collections.ConfigDict(content["config"])
        looks_up = [step for step in chain.get("steps", ()) if step.get("embeddings")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / ABOUT} makes no policy: {_line(error)}; {_AGAIN}") from error
    for step in looks_up:
        step["embeddings"] = str(_checked(folder, EMBEDDINGS, content))
    stored = {"config": config, "statistics": json.dumps(chain), "masks": content.get("masks")}
    return stored | {"params": params, "step": content["step"], "file": folder / ABOUT}


def _tensors(folder: pathlib.Path, content: dict[str, Any]) -> dict[str, np.ndarray]:
    load_file = _packages.need("safetensors.numpy", "a policy folder", "policy").load_file
    from safetensors import SafetensorError

    file = _checked(folder, TENSORS, content)
    try:
        tensors = load_file(file)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{file} is no safetensors file ({_line(error)}): {_AGAIN}") from error
    _check_finite(tensors, f"{file} has", _AGAIN)
    return dict(sorted(tensors.items()))


def _checked(folder: pathlib.Path, name: str, content: Mapping[str, Any]) -> pathlib.Path:
    """Returns the path of a file that is what ``policy.json`` says; raises an error otherwise."""
    file, entry = folder / name, content["files"].get(name)
    if not isinstance(entry, dict) or not isinstance(entry.get("bytes"), int):
        raise ValueError(f"{folder / ABOUT} lacks size and SHA-256 of {name}: {_AGAIN}")
    if not file.is_file():
        raise FileNotFoundError(f"policy folder {folder} has no {name}: {_AGAIN}")
    size = file.stat().st_size
    if size < 1024 and file.read_bytes().startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{file} is a pointer of Git LFS, expected {entry['bytes']} bytes: git lfs pull in the "
            "folder, or download it again"
        )
    if size != entry["bytes"]:
        less = "cut short" if size < entry["bytes"] else "another file"
        raise ValueError(
            f"{file} has {size} bytes, expected {entry['bytes']}; it is {less}: {_AGAIN}"
        )
    if (found := _digest(file)) != entry.get("sha256"):
        raise ValueError(
            f"{file} has SHA-256 {found[:12]}..., expected {str(entry.get('sha256'))[:12]}... by "
            f"{ABOUT}; it is damaged or of another policy: {_AGAIN}"
        )
    return file


def write(
    path: str | os.PathLike[str],
    params: Mapping[str, Any],
    content: Mapping[str, Any],
    card: str,
    *,
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes a policy folder, whole or not at all, and returns its path.

    The folder is made beside its place and renamed. One that has the same parameters is replaced,
    unless its card was edited; nothing but a policy folder is replaced ever.

    Args:
      path: the folder.
      params: nested dicts of arrays.
      content: ``step``, ``config``, ``statistics`` (JSON of the chain) and more JSON values for
        ``policy.json``.
      card: text of the model card.
      overwrite: replace another policy, or an edited card.

    Raises:
      FileExistsError: the place is taken.
      ValueError: a parameter is not finite.
    """
    save = _packages.need("safetensors.numpy", "a policy folder", "policy").save
    final = pathlib.Path(paths.expanded(path)).absolute()
    _check_place(final)
    content = dict(content)
    chain = json.loads(content.pop("statistics"))
    tensors = {n: np.asarray(v, order="C") for n, v in sorted(flat(params).items())}
    _check_finite(tensors, "the policy has", "it is not written")
    with paths.replacing_folder(final, overwrite=True) as folder:
        (folder / TENSORS).write_bytes(save(tensors, {"format": "flax"}))
        for step in chain.get("steps", ()):
            if step.get("embeddings"):
                source = epath.Path(step["embeddings"]).expanduser()  # it may be gs://
                (folder / EMBEDDINGS).write_bytes(source.read_bytes())
                step["embeddings"] = EMBEDDINGS
        (folder / CARD).write_text(card, encoding="utf-8")
        names = [name for name in FILES if (folder / name).exists()]
        files = {
            n: {"bytes": (folder / n).stat().st_size, "sha256": _digest(folder / n)} for n in names
        }
        if not overwrite:
            _check_same(final, files)
        whole = {"format": FORMAT, **content, "chain": chain, "files": files}
        (folder / ABOUT).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return final


def _check_place(final: pathlib.Path) -> None:
    """Raises FileExistsError if there is something else than a policy folder."""
    if not final.exists():
        return
    others = (
        sorted(p.name for p in final.iterdir() if p.name not in FILES) if final.is_dir() else []
    )
    if others or not final.is_dir() or (any(final.iterdir()) and not is_folder(final)):
        has = f"has {', '.join(others[:4])}, which is" if others else "is"
        raise FileExistsError(
            f"{final} {has} no part of a policy folder, expected a new name or a policy folder: "
            "choose another"
        )


def _check_same(final: pathlib.Path, files: Mapping[str, Any]) -> None:
    """Raises FileExistsError if there is another policy, or a card that somebody edited."""
    if not is_folder(final):
        return
    try:
        old = about(final)
        same = old["files"][TENSORS]["sha256"] == files[TENSORS]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        old, same = {}, False
    if not same:
        raise FileExistsError(
            f"{final} has another policy (step {old.get('step', 'unknown')}), expected a new name: "
            "choose another folder, or replace it with --overwrite"
        )
    card = final / CARD
    if card.exists() and _digest(card) != old["files"].get(CARD, {}).get("sha256"):
        raise FileExistsError(
            f"{card} was edited, and would be lost: keep the folder as it is, choose another, or "
            "replace it with --overwrite"
        )


def check_shapes(params: Any, expected: Any, file: pathlib.Path) -> None:
    """Raises ValueError at the first parameter whose shape is not the one that the config makes."""
    shapes, model = (
        {n: tuple(v.shape) for n, v in flat(tree).items()} for tree in (params, expected)
    )
    for name in sorted(shapes.keys() | model.keys()):
        if shapes.get(name) != model.get(name):
            raise ValueError(
                f"{file.parent / TENSORS} has {name} of shape {shapes.get(name, 'nothing')}, the "
                f"config in {ABOUT} makes {model.get(name, 'nothing')}: {_AGAIN}"
            )


def check_code(assets: Mapping[str, Any], where: str) -> None:
    """Raises ValueError if a policy from elsewhere names code that is not the library's, which
    would run when it is built."""
    config, chain = assets["config"].to_dict(), json.loads(assets["statistics"])
    run = ("model", "schedule", *(("data",) if assets["masks"] else ()))
    parts = {f"config.{name}": config.get(name) for name in run} | {"chain": chain}
    for field, value in (item for name, part in parts.items() for item in _leaves(name, part)):
        if field.rpartition(".")[2] in _NAMES and ":" in str(value):
            raise ValueError(
                f"{where} names code outside of ambient_jax ({field} = {value!r}), which a policy "
                "from the hub may not run: read it, download it (hf download), load the folder"
            )


def _leaves(name: str, tree: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(f"{name}.{key}", value)
    elif isinstance(tree, list | tuple):
        for i, value in enumerate(tree):
            yield from _leaves(f"{name}[{i}]", value)
    else:
        yield name, tree


def flat(params: Any) -> dict[str, Any]:
    """Returns arrays by their path, such as "backbone/Dense_0/kernel"."""
    from flax import traverse_util

    return traverse_util.flatten_dict(params, sep="/")


def nested(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Computes the inverse of ``flat``."""
    from flax import traverse_util

    return traverse_util.unflatten_dict(dict(tensors), sep="/")


def _check_finite(tensors, who, remedy):
    for name, value in tensors.items():
        if value.dtype.kind not in "iub" and not np.isfinite(value).all():
            raise ValueError(f"{who} {name} with values that are not finite: {remedy}")


def _digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(error):
    return " ".join(str(error).split())[:120]
