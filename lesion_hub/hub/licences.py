"""Licences follow the data into the weights: a card may not be more permissive than what it was trained on."""

from __future__ import annotations

from collections.abc import Iterable

from lesion_hub.errors import StoreError

# What each licence asks of those who use the weights. More terms is stricter; unknown licences are asked about.
_TERMS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("cc0-1.0", "unlicense", "pddl"), frozenset()),
    **dict.fromkeys(("apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause"), frozenset({"by"})),
    **dict.fromkeys(("cc-by-4.0", "cc-by-3.0", "cc-by-2.0"), frozenset({"by"})),
    **dict.fromkeys(("cc-by-sa-4.0", "cc-by-sa-3.0", "odbl"), frozenset({"by", "sa"})),
    **dict.fromkeys(("cc-by-nc-4.0", "cc-by-nc-3.0", "cc-by-nc-2.0"), frozenset({"by", "nc"})),
    **dict.fromkeys(("cc-by-nc-sa-4.0", "cc-by-nc-sa-3.0"), frozenset({"by", "nc", "sa"})),
    "cc-by-nd-4.0": frozenset({"by", "nd"}),
    "cc-by-nc-nd-4.0": frozenset({"by", "nc", "nd"}),
}
_WORDS = {"by": "attribution", "nc": "non-commercial use", "sa": "share-alike", "nd": "no derivatives"}


def check_licence(card: str | None, data: Iterable[tuple[str, str]]) -> None:
    """Raise one line when the card's licence drops a term of a training set's.

    Args:
        card: the licence id in the card's metadata.
        data: (data set name, licence id) of every training source.

    >>> check_licence("cc-by-nc-4.0", [("HAM10000", "cc-by-nc-4.0")])
    """
    if not card:
        raise StoreError("the card states no licence; add `license: cc-by-nc-4.0` (say) to the front matter of README.md")
    for name, licence in data:
        missing = _terms(licence, f"data set {name}") - _terms(card, "the card")
        if missing:
            terms = " and ".join(_WORDS[term] for term in sorted(missing))
            raise StoreError(
                f"licence {card} drops {terms}, which {name} ({licence}) asks for; "
                f"publish under {licence}, or force it if you hold other rights"
            )


def strictest(licences: Iterable[str]) -> str:
    """The licence that the weights inherit: the one that keeps every term of all of them.

    >>> strictest(["cc0-1.0", "cc-by-nc-4.0", "cc-by-4.0"])
    'cc-by-nc-4.0'
    """
    given = list(dict.fromkeys(licences))
    unknown = [licence for licence in given if licence.lower() not in _TERMS]
    if unknown:
        return unknown[0]  # for whoever publishes to settle: ``check_licence`` stops there
    wanted = frozenset().union(*(_TERMS[licence.lower()] for licence in given))
    exact = [licence for licence in (*given, *_TERMS) if _TERMS[licence.lower()] == wanted]
    return exact[0] if exact else max(given, key=lambda licence: len(_TERMS[licence.lower()]))


def _terms(licence: str, owner: str) -> frozenset[str]:
    try:
        return _TERMS[licence.lower()]
    except KeyError:
        raise StoreError(
            f"licence {licence!r} of {owner} is not one we can compare; known: {', '.join(sorted(_TERMS))}; "
            "use one of these, or force it"
        ) from None
