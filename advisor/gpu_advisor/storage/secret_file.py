"""Tokens and passwords in files that are replaced while the program runs."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

log = logging.getLogger(__name__)


class SecretFile:
    """The token or password in a file, read again when the file changes.

    Projected service-account tokens expire; the kubelet replaces the file before, and clients must read it again:
    https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken

    The constructor raises OSError or ValueError for a file that is not readable, is empty or is more than one line of
    text. Where a later version of the file is, the last valid secret stays in use, with a warning.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp = _stamp(path)
        self._secret = _read(path)
        self._last_error = ""

    def __repr__(self) -> str:
        return f"SecretFile({str(self._path)!r})"

    def __call__(self) -> str:
        """The current secret."""
        with self._lock:
            try:
                stamp = _stamp(self._path)
                if stamp != self._stamp:
                    self._secret = _read(self._path)
                    self._stamp, self._last_error = stamp, ""
            except (OSError, ValueError) as error:
                if str(error) != self._last_error:
                    log.warning("%s; the last valid token or password stays in use", error)
                self._last_error = str(error)
            return self._secret


#: A secret that is given as it is, or in a file.
Secret = str | SecretFile


def reveal(secret: Secret) -> str:
    """The current text of a secret."""
    return secret if isinstance(secret, str) else secret()


def _stamp(path: Path) -> tuple[int, int, int, int]:
    """Differs between versions of a file: replaced as a whole (inode) or written in place (times and size)."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size


def _read(path: Path) -> str:
    """Without surrounding white space. The errors have no part of the secret."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: is it the right file?") from None
    if not secret:
        raise ValueError(f"{path} is empty: write the token or password into it")
    if not secret.isprintable():
        raise ValueError(f"{path} has more than one line, or control characters: is it the right file?")
    return secret
