"""Files that are whole or absent, and locks that end with their process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from robustness_lib.errors import UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is either whole or as it was before, whatever happens meanwhile.

    Raises:
        UserError: The disk is full or the folder cannot be written; nothing that was there is lost.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise UserError(
            f"could not write {path} ({error.strerror or error}); nothing recorded before is lost: "
            "make room or choose another folder, then run the same command again"
        ) from error


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock, which ends with the process at the latest, so that two sweeps share one store.

    Args:
        path: The lock file (made if missing), or a folder.
        wait: Whether to wait for a lock that another process holds.

    Yields:
        True where the lock is held; False where another process holds it and ``wait`` is False.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"could not lock {path} ({error.strerror or error}); choose a folder that can be written"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)
