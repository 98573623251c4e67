"""Licences follow the data into the weights: a card may not be more permissive than what it was trained on.

Here are the terms of each licence, what a folder's card states and its training data ask for, and the data sets' citations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import yaml
from huggingface_hub import ModelCard

from lesion_hub.config import EnsembleConfig
from lesion_hub.errors import StoreError, one_line
from lesion_hub.hub.layout import CARD_NAME, load_config, own_section

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
_TERM_WORDS = {"by": "attribution", "nc": "non-commercial use", "sa": "share-alike", "nd": "no derivatives"}

_HAM = (
    "Tschandl, Rosendahl, Kittler: The HAM10000 dataset, a large collection of multi-source dermatoscopic images of common "
    "pigmented skin lesions. Scientific Data 5, 180161 (2018)."
)
_CODELLA = (
    "Codella et al.: Skin lesion analysis toward melanoma detection: a challenge at the 2017 International Symposium on "
    "Biomedical Imaging. arXiv:1710.05006 (2017)."
)
_BCN = "Combalia et al.: BCN20000: dermoscopic lesions in the wild. arXiv:1908.02288 (2019)."
_GUTMAN = "Gutman et al.: Skin lesion analysis toward melanoma detection: a challenge at ISBI 2016. arXiv:1605.01397 (2016)."
_ROTEMBERG = (
    "Rotemberg et al.: A patient-centric dataset of images and metadata for identifying melanomas using clinical context. "
    "Scientific Data 8, 34 (2021)."
)
_PACHECO = (
    "Pacheco et al.: PAD-UFES-20: a skin lesion dataset composed of patient data and clinical images collected from "
    "smartphones. Data in Brief 32, 106221 (2020)."
)
_GROH = (
    "Groh et al.: Evaluating deep neural networks trained on clinical images in dermatology with the Fitzpatrick 17k dataset. "
    "arXiv:2104.09957 (2021)."
)
CITATIONS: dict[str, tuple[str, ...]] = {
    "ham10000": (_HAM,),
    "isic2016": (_GUTMAN,),
    "isic2017": (_CODELLA,),
    "isic2018": (_HAM, _CODELLA),
    "isic2019": (_HAM, _CODELLA, _BCN),
    "isic2020": (_ROTEMBERG,),
    "padufes20": (_PACHECO,),
    "fitzpatrick17k": (_GROH,),
}


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
            terms = " and ".join(_TERM_WORDS[term] for term in sorted(missing))
            raise StoreError(
                f"licence {card} drops {terms}, which {name} ({licence}) asks for; "
                f"publish under {licence}, or force it if you hold other rights"
            )


def _terms(licence: str, owner: str) -> frozenset[str]:
    try:
        return _TERMS[licence.lower()]
    except KeyError:
        raise StoreError(
            f"licence {licence!r} of {owner} is not one we can compare; known: {', '.join(sorted(_TERMS))}; "
            "use one of these, or force it"
        ) from None


def strictest(licences: Iterable[str]) -> str:
    """Return the licence that the weights inherit: the one that keeps every term of all of them.

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


def card_licence(folder: Path) -> str | None:
    """Read the licence id in the front matter of the folder's card; None where there is no card or none in it."""
    path = folder / CARD_NAME
    try:
        licence = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.get("license")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = one_line(error)
        raise StoreError(f"{path}: the front matter cannot be read ({reason}); mend the YAML between the --- lines") from None
    return str(licence) if licence else None


def training_licences(folder: Path) -> list[tuple[str, str]]:
    """List (data set, licence) of every source that the weights in ``folder`` were trained on, a bundle's members' too."""
    config = load_config(folder)
    sections = [own_section(config)]
    if isinstance(config, EnsembleConfig) and config.weights_sha256 is not None:
        from lesion_hub.hub.bundle import bundled_members  # imports torch

        sections += [member.lesion_hub for member in bundled_members(folder)]
    return [(source.name, source.license) for section in sections if section.training for source in section.training.data]


def bare_name(data_set: str) -> str:
    """Spell a data set's name without what its spellings differ in.

    >>> bare_name("ISIC 2017"), bare_name("isic2017")
    ('isic2017', 'isic2017')
    """
    return re.sub("[^a-z0-9]", "", data_set.lower())


def citations(data_sets: Iterable[str]) -> list[str]:
    """List the references of the data sets that we know by name, each once.

    >>> citations(["HAM10000", "my own images"])[0][:8]
    'Tschandl'
    """
    slugs = map(bare_name, data_sets)
    return list(dict.fromkeys(text for slug in slugs for known, texts in CITATIONS.items() if known in slug for text in texts))
