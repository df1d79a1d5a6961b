"""Code in the Markdown pages: blocks by language, and shell blocks as the commands in them.

An indented block is shell. Everything else is in a fence with its language.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")})

#: What ends a command in a shell.
_SEPARATORS = frozenset({";", "&&", "||", "|", "&", "(", ")"})
_REDIRECTIONS = frozenset({">", ">>", "<"})
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
#: The five fields of a line of crontab(5), and its command.
_CRON = re.compile(r"((?:[\d*/,-]+ +){5})(.+)")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    #: "sh" for an indented block; "" for a fence without a language
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command in a page: the words up to a pipe, a redirection or the next command."""

    where: str
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        return self.words[0].rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.where}: {' '.join(self.words)}"


def blocks(page: Path) -> Iterator[Block]:
    """All code blocks of a page, also those in lists."""
    name = str(page.relative_to(ROOT))
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type in ("code_block", "fence") and token.map:
            language = "sh" if token.type == "code_block" else token.info.strip()
            yield Block(name, token.map[0] + 1, language, token.content)


def all_blocks(*languages: str) -> list[Block]:
    """The blocks of all pages in these languages; without any, all blocks."""
    return [block for page in PAGES for block in blocks(page) if not languages or block.language in languages]


def shell_text(block: Block) -> str:
    """What a shell would run of a block: of a terminal's recording its commands, of a crontab the last field."""
    if block.language == "console":
        return "".join(f"{line[2:]}\n" for line in block.text.splitlines() if line.startswith("$ "))
    if block.language == "crontab":
        return "".join(f"{cron_command(line)}\n" for line in block.text.splitlines())
    if block.language == "ini":
        return "".join(f"{line}\n" for line in re.findall(r"^Exec\w+=[-@:+!]*(.+)$", block.text, re.MULTILINE))
    return block.text


def cron_command(line: str) -> str:
    """The command of a line of a crontab. Raises ValueError."""
    found = _CRON.fullmatch(line)
    if not found:
        raise ValueError(f"not five fields and a command: {line}")
    if re.search(r"(?<!\\)%", found[2]):
        raise ValueError(f"cron ends a command at %: write \\%: {line}")
    return found[2]


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block. Raises ValueError where a quotation is not closed."""
    pending = ""
    for line in re.sub(r"\\\n\s*", " ", shell_text(block)).splitlines():
        pending += line
        try:
            words = _words(pending)
        except ValueError:  # a quotation goes on in the next line
            pending += "\n"
            continue
        pending = ""
        yield from _commands(str(block), words)
    if pending:
        raise ValueError(f"{block}: a quotation is not closed: {pending}")


def inline_commands(page: Path, programs: Sequence[str]) -> Iterator[Command]:
    """Commands of these programs within sentences and tables: `gpu-advisor doctor`."""
    for token in _inline(MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))):
        if token.type == "code_inline" and token.content.split(" ")[0] in programs and " " in token.content:
            yield from _commands(str(page.relative_to(ROOT)), _words(token.content))


def _inline(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        yield from token.children or ()


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def _commands(where: str, words: Sequence[str]) -> Iterator[Command]:
    ends = [-1, *(at for at, word in enumerate(words) if word in _SEPARATORS), len(words)]
    for start, end in pairwise(ends):
        part = words[start + 1 : end]
        redirected = next((at for at, word in enumerate(part) if word in _REDIRECTIONS), len(part))
        part = part[:redirected]
        while part and _ASSIGNMENT.match(part[0]):
            part = part[1:]
        if part:
            yield Command(where, tuple(part))
