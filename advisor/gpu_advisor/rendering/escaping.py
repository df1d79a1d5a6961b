"""One escape function for each format. HTML is escaped by markupsafe, a shell's words by shlex, YAML by its library."""

from __future__ import annotations

import re

_LOGIN_OF_URL = re.compile(r"//[^/\s]*@")

#: Characters that start markup within a line (https://github.github.com/gfm/#backslash-escapes).
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&#])")


def one_line(text: str, replacement: str = "?") -> str:
    """Without unprintable characters: labels cannot move the cursor or start a line of their own."""
    return text if text.isprintable() else "".join(each if each.isprintable() else replacement for each in text)


def hide_logins(text: str) -> str:
    """Without user names and passwords of URLs."""
    return _LOGIN_OF_URL.sub("//...@", text)


def escape_markdown(text: str) -> str:
    """Text within a line or a table cell of GitHub's Markdown."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", one_line(text, " "))


def escape_formula(text: str) -> str:
    """A CSV field that no spreadsheet takes for a formula (OWASP: CSV injection). CSV has no way to represent NUL:
    before Python 3.11 the writer refuses it, and readers stop at it."""
    text = text.replace("\0", "\ufffd")
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def escape_label(value: str) -> str:
    """A label value of the Prometheus text format."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
