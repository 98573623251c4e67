"""Columns that look like patient facts under names that no reader takes: proposed to the user, never read unasked.

A column is proposed when its name says so in one of several languages, its content bears that out, and it would add something.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pandas as pd

from lesion_hub.data.sources.rows import age_years
from lesion_hub.diagnosis_names import slug
from lesion_hub.taxonomy import canonical_sex, canonical_site

# Column of the schema -> the words, as `slug` has them, that its name may hold elsewhere.
_WORDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "group": frozenset(
            (
                *(
                    "patient",
                    "patientin",
                    "patienten",
                    "paciente",
                    "paziente",
                    "pat",
                    "case",
                    "fall",
                    "subject",
                    "person",
                    "mrn",
                ),
                *("patientid", "patientenid", "patid", "patnr", "caseid", "lesionid", "lesion", "laesion", "lasion", "lesione"),
            )
        ),
        "age": frozenset(("age", "alter", "lebensalter", "patientenalter", "edad", "idade", "eta", "years", "jahre")),
        "sex": frozenset(("sex", "gender", "geschlecht", "sexo", "sexe", "sesso", "genero")),
        "site": frozenset(
            (
                *("site", "location", "localization", "localisation", "lokalisation", "lokalisierung", "localizacion"),
                *("localizacao", "bodysite", "anatomy", "region", "korperregion", "korperstelle", "sede"),
            )
        ),
    }
)
# Beside a word for a patient or lesion these may stand, and no others: "lesion_size" groups nothing.
_ID_WORDS = frozenset(("id", "ids", "nr", "no", "num", "number", "nummer", "code", "key", "uid", "pseudonym", "study", "name"))
_READS = MappingProxyType({"age": age_years, "sex": canonical_sex, "site": canonical_site})


@dataclass(frozen=True)
class Proposal:
    """A column ``theirs`` that could be mapped to the schema's column ``ours``, and what that would change.

    For groups ``now`` and ``then`` count the groups; for other columns the images of which the fact is known.
    """

    ours: str
    theirs: str
    now: int
    then: int

    def __str__(self) -> str:
        option = f"--column {shlex.quote(f'{self.ours}={self.theirs}')}"
        if self.ours == "group":
            return f"{self.now:,} groups; `{option}` would make {self.then:,}"
        return f"{self.ours} is known of {self.now:,} images; `{option}` would make that {self.then:,}"


def looks_like(ours: str, name: str) -> bool:
    """Return whether a column of that name may hold what the schema calls ``ours``.

    >>> looks_like("group", "PatientID"), looks_like("age", "Alter (Jahre)"), looks_like("group", "lesion_size")
    (True, True, False)
    """
    words = re.findall(r"[^\W_]+", slug(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)))
    found = [word for word in words if word in _WORDS[ours]]
    return bool(found) and (ours != "group" or all(word in _ID_WORDS or word in _WORDS[ours] for word in words))


def propose(kept: pd.DataFrame, others: pd.DataFrame | None) -> tuple[Proposal, ...]:
    """Return what the unread columns ``others`` could add to the rows ``kept``; both tables have the same rows."""
    if others is None or kept.empty:
        return ()
    groups = int(kept["group"].where(kept["group"].notna(), kept["image_id"]).nunique())
    found = []
    for theirs in map(str, others.columns):
        cells = others[theirs]
        if looks_like("group", theirs):
            then = int(cells.where(cells.notna(), kept["image_id"]).astype(str).nunique())
            if 1 < then < groups:
                found.append(Proposal("group", theirs, groups, then))
        for ours, read in _READS.items():
            if kept[ours].isna().all() and looks_like(ours, theirs):
                filled = cells[cells.notna()]
                known = sum(read(cell) is not None for cell in filled)
                if known and 2 * known >= len(filled):
                    found.append(Proposal(ours, theirs, 0, known))
    return tuple(sorted(found, key=lambda proposal: (list(_WORDS).index(proposal.ours), proposal.then)))
