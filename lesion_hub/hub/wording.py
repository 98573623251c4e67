"""What a card may never say. A model estimates; it does not diagnose, reassure or clear, and it is no medical device."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

DISCLAIMER = "Not a medical device"
SEE_A_DOCTOR = re.compile(r"\bsee(n by)? a (doctor|dermatologist)\b", re.IGNORECASE)

_REASSURING = r"(benign|safe|harmless|healthy|nothing to worry about|cancer[- ]free)"
# Each rule: what is wrong, and what it looks like. Labels called "benign" in tables and lists are no statement.
_SEEMING = r"(is|are|it's|looks?|seems?|appears?|being)\s+(probably |likely |almost certainly |completely |quite )?"
_NO_NEED = r"\b(no need|not necessary|need not|don't need|do not need)\b"
_RULES: tuple[tuple[str, str], ...] = (
    ("tells a person that a lesion is benign or safe", rf"\b{_SEEMING}{_REASSURING}\b"),
    ("tells a person that a lesion is benign or safe", rf"\byour (mole|lesion|spot|skin)\b[^.|]*\b{_REASSURING}\b"),
    ("claims to exclude a disease", r"\b(rules?|ruled|ruling) out (skin )?(cancer|melanoma|malignancy|a malignant lesion)\b"),
    ("claims to diagnose", r"\b(this model|the model|it) (can )?(diagnoses|detects all|never misses)\b"),
    ("advises against seeing a doctor", rf"{_NO_NEED}[^.|]*\b(doctor|dermatologist)\b"),
    ("claims a clinical status", r"\b(clinically (validated|proven|approved)|FDA[- ](approved|cleared)|CE[- ]marked)\b"),
    ("claims to match doctors", r"\b(better than|outperforms|superior to|as good as) (a )?(doctors?|dermatologists?)\b"),
)
_COMPILED = tuple((what, re.compile(pattern, re.IGNORECASE)) for what, pattern in _RULES)


@dataclass(frozen=True)
class Breach:
    """A line (counted from 1) that breaks a rule, and the words that do."""

    line: int
    what: str
    words: str

    def __str__(self) -> str:
        return f"line {self.line} {self.what}: {self.words!r}"


def breaches(text: str) -> Iterator[Breach]:
    """Every place where ``text`` breaks a rule.

    >>> [str(breach) for breach in breaches("Your mole is safe.")][0]
    "line 1 tells a person that a lesion is benign or safe: 'is safe'"
    """
    for number, line in enumerate(text.splitlines(), start=1):
        for what, pattern in _COMPILED:
            match = pattern.search(line)
            if match:
                yield Breach(number, what, match[0])


def missing_statements(text: str) -> Iterator[str]:
    """What every card must say and this one does not."""
    if DISCLAIMER not in text:
        yield f"does not say {DISCLAIMER!r}"
    if not SEE_A_DOCTOR.search(text):
        yield "does not say when to see a doctor"
