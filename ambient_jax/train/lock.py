"""Allows one run per workdir: ``<workdir>/running.lock`` names the process that writes there.

The file appears whole or not at all (by a hard link, which is atomic on NFS). A killed process
leaves it behind. On the same machine its process id and start time show that it is gone; on another
one the file's age does, as a living owner touches its lock.

In a bucket the file is an object, which is created only where there is none. Its owner touches it
by writing ``running.lock.alive.<token>``.
"""

import contextlib
import functools
import json
import os
import pathlib
import shlex
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from absl import logging

from ambient_jax.data import paths
from ambient_jax.data.bucket import BucketPath, StoreError
from ambient_jax.data.paths import AnyPath
from ambient_jax.train import parallel

NAME = "running.lock"
BEAT = 10.0  # s between two signs of life
SILENCE = 120.0  # s without one after which an owner on another machine counts as gone
_LEAVE = 20.0  # s that SIGTERM waits for the lock's deletion

Owner = dict[str, Any]  # content of the file
# Locks of this process, by real path or URL of the workdir: token and thread.
_HELD: dict[str, tuple[str, int]] = {}


@contextlib.contextmanager
def hold(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Makes a workdir, if absent, and locks it until the block ends, fails or is stopped.

    A thread may lock a workdir twice. In a multi-host run process 0 locks it for all; all hosts
    must call this. Raises ValueError, on all hosts, if another run has the lock, with its owner,
    start and a remedy; OSError if it cannot be made or written to.
    """
    folder, error = paths.folder(workdir), None
    key, is_new = _key(folder), False
    takes = key not in _HELD or _HELD[key][1] != threading.get_ident()
    takes = takes and parallel.is_first_host()
    if takes:
        try:
            is_new = _take(folder, key)
        except (ValueError, OSError) as e:
            error = e
    if message := parallel.tell_all(str(error) if error else ""):
        raise error or ValueError(message)
    if not takes:
        yield
        return
    stop = threading.Event()
    with _released_at_sigterm():
        threading.Thread(target=_beat, args=(key, _HELD[key][0], stop), daemon=True).start()
        try:
            yield
        finally:
            stop.set()
            _leave(key)
            if is_new and isinstance(folder, pathlib.Path):
                with contextlib.suppress(OSError):  # it has files
                    folder.rmdir()


def alone(job: Callable) -> Callable:
    """Returns ``job(config, workdir, ...)`` that holds the workdir while it runs."""

    @functools.wraps(job)
    def run(config, workdir, *args, **options):
        with hold(workdir):
            return job(config, workdir, *args, **options)

    return run


def check(workdir: str | os.PathLike[str]) -> None:
    """Checks the lock before files are replaced, and writes it again if it was deleted. Raises
    OSError if another run has taken over a workdir that this process held."""
    key = _key(paths.folder(workdir))
    if key not in _HELD:
        return
    folder, token = paths.folder(key), _HELD[key][0]
    _create(folder / NAME, _about(folder, token))
    owner = _read(folder / NAME)
    if owner is not None and owner.get("token") != token:
        raise OSError(
            f"workdir {folder} was taken over by {_who(owner)}, as this run gave no sign of life "
            f"for {SILENCE:g} s or its {NAME} was deleted: this run ends here and writes no more"
        )


def await_end(workdir: str | os.PathLike[str], seconds: float = 60.0) -> None:
    """Waits until a stopped run on this machine has released its workdir."""
    path, end = paths.folder(workdir) / NAME, time.monotonic() + seconds
    while (owner := _read(path)) and _probe(owner, path) and time.monotonic() < end:
        time.sleep(0.2)


def _key(folder: AnyPath) -> str:
    return f"{folder}" if isinstance(folder, BucketPath) else os.path.realpath(folder)


def _take(folder: AnyPath, key: str) -> bool:
    """Takes the lock; returns whether it made the folder."""
    if isinstance(folder, pathlib.Path) and folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"workdir {folder} is a file, expected a folder or a new name")
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path, token = folder / NAME, uuid.uuid4().hex
    about = _about(folder, token)
    while not _create(path, about):
        owner = _read(path)
        if owner is None:  # released just now
            continue
        if _is_alive(owner, path):
            is_local = owner.get("machine") == _machine()
            hint = "" if is_local else f"; should it be gone for good, delete {path}"
            raise ValueError(
                f"workdir {folder} is in use by {_who(owner)}, since {owner.get('since')}: wait "
                f"for its end or stop it, or give another --workdir{hint}"
            )
        if _take_over(path, owner, about):
            break
    _HELD[key] = token, threading.get_ident()
    return is_new


def _leave(key: str) -> None:
    token, _ = _HELD.pop(key)
    path = paths.folder(key) / NAME
    try:
        if (_read(path) or {}).get("token") == token:
            path.unlink(missing_ok=True)
        if isinstance(path, BucketPath):
            _sign(path, token).unlink()
    except StoreError as error:  # what the run itself ended with is told
        logging.warning("the lock stays: %s", error)


def _beat(key: str, token: str, stop: threading.Event) -> None:
    path = paths.folder(key) / NAME
    while not stop.wait(BEAT):
        with contextlib.suppress(OSError):  # ``check`` replaces a deleted file
            if not isinstance(path, BucketPath):
                os.utime(path)
            elif key in _HELD:
                _sign(path, token).write_text(f"{time.time()}\n")


def _sign(path: BucketPath, token: Any) -> BucketPath:
    return path.with_name(f"{NAME}.alive.{token}")


@contextlib.contextmanager
def _released_at_sigterm() -> Iterator[None]:
    """Releases the lock at SIGTERM; during training steps the loop has its own handler."""
    me = os.getpid()
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(number, frame):
        if os.getpid() == me:  # not in a fork of this process
            for key in list(_HELD):
                # The thread that was interrupted may be in the middle of a request to a store.
                leaving = threading.Thread(target=_leave, args=(key,), daemon=True)
                leaving.start()
                leaving.join(_LEAVE)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _about(folder: AnyPath, token: str) -> Owner:
    return {
        "token": token,
        **{"host": socket.gethostname(), "pid": os.getpid()},
        "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "command": shlex.join(sys.argv)[:200].replace("\n", " "),
        "machine": _machine(),
        "started": _started(os.getpid()),
        "folder": _inode(folder),
    }


def _create(path: AnyPath, about: Owner) -> bool:
    """Writes the file unless it exists; returns whether it did."""
    if path.exists():
        return False
    text = json.dumps(about, indent=2) + "\n"
    if isinstance(path, BucketPath):
        return path.create(text.encode())
    whole = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        whole.write_text(text, encoding="utf-8")
        try:
            os.link(whole, path)
        except OSError:  # it exists, or no hard links, such as in a mounted bucket
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except FileExistsError:
        return False
    finally:
        whole.unlink(missing_ok=True)
    return True


def _read(path: AnyPath) -> Owner | None:
    """Returns the owner of the lock, {} if the file is unreadable; None if there is no file."""
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        return owner if isinstance(owner, dict) else {}
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def _take_over(path: AnyPath, owner: Owner, about: Owner) -> bool:
    """Replaces the lock of an owner who is gone; returns whether it did.

    Only one process can create the claim file, so that the lock is never absent.
    """
    claim = path.with_name(f"{path.name}.after.{owner.get('token')}")
    if not _create(claim, about):
        claimant = _read(claim)
        if claimant is not None and not _is_alive(claimant, claim):  # killed during the takeover
            claim.unlink(missing_ok=True)
        time.sleep(0.01)
        return False
    if _read(path) != owner:
        claim.unlink(missing_ok=True)
        return False
    if isinstance(path, BucketPath):
        path.write_bytes(claim.read_bytes())
        claim.unlink()
        _sign(path, owner.get("token")).unlink()
    else:
        os.replace(claim, path)
    logging.info("%s: taken over from %s, which is gone", path.parent, _who(owner))
    return True


def _is_alive(owner: Owner, path: AnyPath) -> bool:
    """Whether the owner of a lock runs; watches the file if the process is on another machine."""
    alive = _probe(owner, path)
    if alive is not None:
        return alive
    before, end = _touched(path, owner), time.monotonic() + SILENCE
    logging.info("%s: held by %s; waiting for a sign of life", path.parent, _who(owner))
    while before is not None and time.monotonic() < end:
        time.sleep(min(BEAT, SILENCE) / 20)
        if (touched := _touched(path, owner)) != before:
            return touched is not None
    return False


def _probe(owner: Owner, path: AnyPath) -> bool | None:
    """Whether an owner on this machine runs; None if it is on another."""
    if not _machine() or owner.get("machine") != _machine():
        return None
    if owner.get("folder") != _inode(path.parent):
        return False  # the workdir is a copy
    return _started(owner.get("pid")) == owner.get("started")


def _touched(path: AnyPath, owner: Owner) -> str | int | None:
    """Returns what changes with every sign of life; None if there is no lock."""
    if isinstance(path, BucketPath):
        found = path.version()
        return found and f"{found} {_sign(path, owner.get('token')).version()}"
    try:
        with path.open() as file:  # NFS may answer a stat without opening from its cache
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def _inode(folder: AnyPath) -> str:
    if isinstance(folder, BucketPath):
        return f"{folder}"
    status = os.stat(folder)
    return f"{status.st_dev}:{status.st_ino}"


@functools.cache
def _machine() -> str:
    """Returns the boot id of this machine and its process namespace; "" if unknown."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int | None) -> str:
    """Returns when a process started, in ticks since the boot; "" if it is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *fields = text.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]


def _who(owner: Owner) -> str:
    if not owner:
        return "an unknown process"
    is_self = owner.get("machine") == _machine() and owner.get("pid") == os.getpid()
    process = "this very process" if is_self else f"process {owner.get('pid')}"
    return f"{process} on {owner.get('host')} ({owner.get('command')})"
