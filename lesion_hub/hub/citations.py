"""Whom to cite for the data that a model saw."""

from __future__ import annotations

import re
from collections.abc import Iterable

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
_GROH = "Groh et al.: Evaluating deep neural networks trained on clinical images in dermatology with the Fitzpatrick 17k dataset. arXiv:2104.09957 (2021)."  # noqa: E501

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


def citations(data_sets: Iterable[str]) -> list[str]:
    """References of the data sets that we know by name, each once.

    >>> citations(["HAM10000", "my own images"])[0][:8]
    'Tschandl'
    """
    slugs = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in data_sets]
    return list(dict.fromkeys(text for slug in slugs for known, texts in CITATIONS.items() if known in slug for text in texts))
