"""Pushes policy folders to the Hugging Face Hub and pulls them.

``huggingface_hub`` does the work, with its own means: ``HF_ENDPOINT`` is the server, ``HF_TOKEN``
or ``hf auth login`` the token, ``HF_HOME`` the cache, which also serves without a network. An
address is ``hf://user/name`` or ``hf://user/name@revision`` (branch, tag or commit).
"""

import importlib
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from ambient_jax import _packages
from ambient_jax.publish import folder as folders

SCHEME = "hf://"
_REPOSITORY = r"[\w.-]+/[\w.-]+"
_LOG_IN = "log in with 'hf auth login', or set HF_TOKEN"


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address on the hub."""
    return os.fspath(path).startswith(SCHEME)


def pull(address: str) -> pathlib.Path:
    """Downloads a policy folder, unless the cache has it, and returns its path there.

    Raises:
      ImportError: huggingface_hub is not installed.
      OSError: the hub does not answer, refuses, or has no such model or revision.
      ValueError: the address is malformed.
    """
    match = re.fullmatch(rf"{SCHEME}({_REPOSITORY})(?:@([^@\s]+))?", address)
    if not match:
        raise ValueError(
            f"{address!r} is no address, expected {SCHEME}user/name or .../name@revision"
        )
    repository, revision = match.groups()
    hub = _package()
    try:
        path = hub.snapshot_download(
            repository, revision=revision, allow_patterns=list(folders.FILES), **_who()
        )
    except Exception as error:  # of many types, by version
        raise _told(error, repository, address, writes=False) from error
    if not folders.is_folder(path):
        raise FileNotFoundError(
            f"{address} has no {folders.ABOUT}, expected a model that python -m "
            "ambient_jax.publish pushed: check the name and the revision"
        )
    return pathlib.Path(path)


def push(path: str | os.PathLike[str], repository: str, *, private: bool = False) -> str:
    """Pushes a policy folder as one commit to a model repository, which it makes if it is absent,
    and returns the commit's URL.

    Args:
      path: the folder; every file is checked first.
      repository: "user/name".
      private: whether a new repository is private.

    Raises:
      ImportError: huggingface_hub is not installed.
      OSError: the hub does not answer, or refuses.
      ValueError: the name is malformed, or the folder is damaged.
    """
    if not re.fullmatch(_REPOSITORY, repository):
        raise ValueError(f"repository is {repository!r}, expected user/name")
    content = folders.read(path)
    hub, files = _package(), [content["file"].with_name(name) for name in folders.FILES]
    added = [hub.CommitOperationAdd(f.name, str(f)) for f in files if f.is_file()]
    api = hub.HfApi(**_who())
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        told = f"Policy {content['config'].get('name')} of step {content['step']}"
        commit = api.create_commit(repository, added, commit_message=told)
    except Exception as error:
        raise _told(error, repository, repository, writes=True) from error
    return str(commit.commit_url)


def _package() -> Any:
    return _packages.need("huggingface_hub", "the hub", "hub")


def _who() -> dict[str, str]:
    from ambient_jax import __version__

    return {"library_name": "ambient_jax", "library_version": __version__}


def _told(error: Exception, repository: str, what: str, *, writes: bool) -> Exception:
    """Returns an error of one line for one of the package's."""
    causes = list(_causes(error))
    names = {cls.__name__ for cause in causes for cls in type(cause).__mro__}
    answers = [getattr(c, "response", None) for c in causes]
    status = next((a.status_code for a in answers if a is not None), None)
    where = importlib.import_module("huggingface_hub.constants").ENDPOINT
    if "RevisionNotFoundError" in names:
        return FileNotFoundError(
            f"{what} is no revision of {repository} at {where}: check the name"
        )
    if "GatedRepoError" in names:
        return PermissionError(
            f"{repository} at {where} is gated ({status}): ask for access there, and {_LOG_IN}"
        )
    if "RepositoryNotFoundError" in names and not writes or status == 404:
        return FileNotFoundError(
            f"{where} has no model {repository} that you may read ({status}): check the name; if "
            f"it is private, {_LOG_IN}"
        )
    if status == 401:
        return PermissionError(f"{where} knows no valid token of yours (401): {_LOG_IN}")
    if status == 403:
        does = "write to" if writes else "read"
        return PermissionError(
            f"{where} does not let you {does} {repository} (403): check the name, and that the "
            f"token may {does} it"
        )
    text = " ".join(str(causes[-1]).split())[:160]
    if status is not None:
        return ConnectionError(
            f"{where} answered {status} for {repository} ({text}): try again later"
        )
    doing = "pushed" if writes else "pulled"
    return OSError(
        f"{repository} cannot be {doing} at {where} ({text}): check the network, try again"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
