"""Patient metadata as a vector, where every part may be missing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lesion_hub.taxonomy import SEXES, SITES, canonical_sex, canonical_site

METADATA_FIELDS = ("age", "age_known", *SEXES, *SITES)
METADATA_INPUTS = len(METADATA_FIELDS)


def encode_metadata(age: Sequence[float | None], sex: Sequence[str | None], site: Sequence[str | None]) -> Tensor:
    """(N, METADATA_INPUTS) float32: age in centuries with a known-flag, then sex and site one-hot; zeros where missing.

    >>> encode_metadata([50.0, None], ["female", None], ["back", None])[:, :4].tolist()
    [[0.5, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    encoded = torch.zeros(len(age), METADATA_INPUTS)
    for row, years, sex_word, site_word in zip(encoded, age, sex, site, strict=True):
        if years is not None and years == years:  # NaN is missing too
            row[0], row[1] = years / 100.0, 1.0
        known_sex, known_site = canonical_sex(sex_word), canonical_site(site_word)
        if known_sex is not None:
            row[METADATA_FIELDS.index(known_sex)] = 1.0
        if known_site is not None:
            row[METADATA_FIELDS.index(known_site)] = 1.0
    return encoded
