"""Files that are whole or absent, and locks that end with their process."""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from robustness_lib.errors import UserError, shortened


def as_path(text: Path | str) -> Path:
    """A path that a person gave, with ``~`` for the home folder."""
    try:
        path = Path(text).expanduser()
        path.is_dir()
    except RuntimeError:
        raise UserError(f"{text} begins with ~, but no home folder is known here; write the whole path") from None
    except (OSError, ValueError) as error:  # such as a name that is too long
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"no file or folder can be called {shortened(str(text))} ({reason}); name another") from error
    return path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file, readable as the umask says, that is whole or as it was before, whatever happens meanwhile."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # so that remove_leftovers knows that somebody is writing it
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(
            f"could not write {path} ({error.strerror or error}); nothing recorded before is lost: "
            "make room or choose another folder, then run the same command again"
        ) from error


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left of files that they were writing (:func:`write_atomically`), below a folder."""
    for path in folder.rglob(f".*.{'[0-9a-f]' * 8}"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            begun = os.fstat(file.fileno())
            if begun.st_size > 0 or time.time() - begun.st_mtime > 60:  # an empty one may not be locked yet
                path.unlink()


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on a file (made if missing) or a folder, which ends with the process at the latest.

    Yields whether the lock is held: not where another process holds it and ``wait`` is False.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"could not lock {path} ({reason}); choose a folder that can be written") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)
