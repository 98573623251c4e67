"""The rules of wording that cards and the page keep: what each must say, and what none may promise."""

from __future__ import annotations

import re
from collections.abc import Iterator

DISCLAIMER = "Not a medical device"
SEE_A_DOCTOR = re.compile(r"\bsee(n by)? a (doctor|dermatologist)\b", re.IGNORECASE)

_REASSURING = r"(benign|safe|harmless|healthy|nothing to worry about|cancer[- ]free)"
_SEEMING = r"(is|are|it's|looks?|seems?|appears?|being)\s+(probably |likely |almost certainly |completely |quite )?"
_NO_NEED = r"\b(no need|not necessary|need not|don't need|do not need)\b"
# Each rule: what is wrong, and what it looks like. Labels called "benign" in tables and lists are no statement.
_RULES = tuple(
    (what, re.compile(pattern, re.IGNORECASE))
    for what, pattern in (
        ("tells a person that a lesion is benign or safe", rf"\b{_SEEMING}{_REASSURING}\b"),
        ("tells a person that a lesion is benign or safe", rf"\byour (mole|lesion|spot|skin)\b[^.|]*\b{_REASSURING}\b"),
        (
            "claims to exclude a disease",
            r"\b(rules?|ruled|ruling) out (skin )?(cancer|melanoma|malignancy|a malignant lesion)\b",
        ),
        ("claims to diagnose", r"\b(this model|the model|it) (can )?(diagnoses|detects all|never misses)\b"),
        ("advises against seeing a doctor", rf"{_NO_NEED}[^.|]*\b(doctor|dermatologist)\b"),
        ("claims a clinical status", r"\b(clinically (validated|proven|approved)|FDA[- ](approved|cleared)|CE[- ]marked)\b"),
        ("claims to match doctors", r"\b(better than|outperforms|superior to|as good as) (a )?(doctors?|dermatologists?)\b"),
    )
)


def breaches(text: str) -> Iterator[str]:
    """Give one line for every place where ``text`` breaks a rule of wording; its lines are counted from 1.

    >>> next(breaches("Your mole is safe."))
    "line 1 tells a person that a lesion is benign or safe: 'is safe'"
    """
    for number, line in enumerate(text.splitlines(), start=1):
        for what, pattern in _RULES:
            match = pattern.search(line)
            if match:
                yield f"line {number} {what}: {match[0]!r}"


def missing_statements(text: str) -> Iterator[str]:
    """Give one line for everything that every card must say and ``text`` does not."""
    if DISCLAIMER not in text:
        yield f"does not say {DISCLAIMER!r}"
    if not SEE_A_DOCTOR.search(text):
        yield "does not say when to see a doctor"
