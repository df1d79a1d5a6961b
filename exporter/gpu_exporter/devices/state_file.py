"""A small JSON file that keeps state across restarts of the exporter, also across kill -9."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_WRITE_FLAGS = (
    os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)  # not on Windows
)


class StateFile:
    """A document for this user only. A crash leaves either the old or the new one.

    `what` and `consequence` say in the log what cannot be written, and what follows.
    """

    def __init__(self, path: Path, what: str, consequence: str) -> None:
        self.path = path
        self._what, self._consequence = what, consequence
        self._write_error_logged = False

    def read(self) -> Any:
        """Raises FileNotFoundError, another OSError, or ValueError if the text is not JSON."""
        return json.loads(self.path.read_text(encoding="utf-8"))

    def write(self, document: Any) -> bool:
        """Whether it was written. A failure is logged once: readings go on without the file."""
        temporary = self.path.with_name(self.path.name + ".new")
        try:
            _prepare(self.path)
            _prepare(temporary)
            with open(os.open(temporary, _WRITE_FLAGS, 0o600), "w", encoding="utf-8") as file:
                file.write(json.dumps(document, indent=1) + "\n")
            os.replace(temporary, self.path)
        except OSError as error:
            if not self._write_error_logged:
                log.warning("cannot write %s to %s: %s; %s", self._what, self.path, error, self._consequence)
            self._write_error_logged = True
            return False
        self._write_error_logged = False
        return True


def _prepare(path: Path) -> None:
    """Create the folder for this user only. Raises OSError if the path exists and is no regular file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
