"""The fenced command blocks of a Markdown page, and the marker that says why one is not run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

# A block with a marker directly above it is not run; the reasons are these and no others. CONTRIBUTING.md repeats them.
REASONS = (
    "needs GPUs",
    "needs two machines",
    "needs a Hub account",
    "needs the network",
    "needs the real data",
    "takes many minutes",
    "runs until stopped",
    "is the test itself",
    "is a fragment",
)
RUN = ("bash", "sh", "python")

_FENCE = re.compile(r"^(?P<fence>```+|~~~+)[ \t]*(?P<language>[\w+-]*)[^\n]*\n(?P<body>.*?)^(?P=fence)[ \t]*$", re.M | re.S)
_MARKER = re.compile(r"<!-- not run: (?P<reason>[^\n]*?) -->\n\Z")
_WORDS = re.compile(r"&&|\|\||[|;]")


@dataclass(frozen=True)
class Block:
    """One fenced block: its page, the line of its fence, language, text, and why it is not run (None: it is).

    ``prints`` is the text block that follows directly, which shows what it prints.
    """

    page: Path
    line: int
    language: str
    text: str
    reason: str | None
    prints: str | None = None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.language in RUN and self.reason is None


def blocks_of(page: Path, text: str | None = None) -> list[Block]:
    """The fenced blocks of a page, in order."""
    content = page.read_text(encoding="utf-8") if text is None else text
    found = []
    matches = list(_FENCE.finditer(content))
    for match, following in zip_longest(matches, matches[1:]):
        marker = _MARKER.search(content[: match.start()])
        line = content.count("\n", 0, match.start()) + 1
        shown = following and following["language"] == "text" and not content[match.end() : following.start()].strip()
        prints = following["body"] if following and shown else None
        found.append(Block(page, line, match["language"], match["body"], marker["reason"] if marker else None, prints))
    return found


def prose_of(page: Path) -> str:
    """The page without its fenced blocks and comments."""
    without = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.sub(r"<!--.*?-->", "", without, flags=re.S)


def commands_in(script: str) -> Iterator[list[str]]:
    """The simple commands of a shell block as words: continued lines joined, comments dropped, lists and pipes taken apart.

    >>> list(commands_in("a b \\\\\\n  c  # why\\nX=1 d 'e f' | g > h"))
    [['a', 'b', 'c'], ['d', 'e f'], ['g']]
    """
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;"):
                yield from _command(words)
                words = []
            else:
                words.append(word)


def _command(words: list[str]) -> Iterator[list[str]]:
    """A command without the variables set before it and what is redirected."""
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    redirection = next((place for place, word in enumerate(words) if set(word) <= set("<>&")), len(words))
    if words[:redirection]:
        yield words[:redirection]
