"""Whose lesion it is: age, sex and site, drawn to fit the diagnosis roughly as they do in HAM10000."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# HAM10000's own words for the site.
LOCALIZATIONS = (
    "back",
    "lower extremity",
    "trunk",
    "upper extremity",
    "abdomen",
    "face",
    "chest",
    "foot",
    "neck",
    "scalp",
    "hand",
    "ear",
    "genital",
    "acral",
)

# ISIC 2019's words for the same sites.
ISIC_SITES = {
    "back": "posterior torso",
    "lower extremity": "lower extremity",
    "trunk": "anterior torso",
    "upper extremity": "upper extremity",
    "abdomen": "anterior torso",
    "face": "head/neck",
    "chest": "anterior torso",
    "foot": "lower extremity",
    "neck": "head/neck",
    "scalp": "head/neck",
    "hand": "upper extremity",
    "ear": "head/neck",
    "genital": "oral/genital",
    "acral": "palms/soles",
}


@dataclass(frozen=True)
class Patient:
    """Age in years (a multiple of 5), sex and site (HAM10000's words); None where nobody wrote it down."""

    age: int | None
    sex: str | None
    localization: str | None


@dataclass(frozen=True)
class Habit:
    """Who gets a diagnosis: mean age and its deviation, the share of men, and weights of ``LOCALIZATIONS``."""

    age: float
    spread: float
    male: float
    sites: tuple[float, ...]


HABITS: dict[str, Habit] = {
    "nv": Habit(46, 15, 0.51, (21, 22, 19, 10, 13, 1.5, 3, 4, 1.2, 0.7, 0.8, 0.5, 0.7, 0.3)),
    "mel": Habit(61, 15, 0.62, (29, 17, 4, 19, 6, 9, 6, 2.5, 2.6, 1.3, 0.3, 1.5, 0.1, 0.2)),
    "bcc": Habit(67, 13, 0.62, (36, 11, 2, 10, 3.5, 20, 9, 0.8, 2.7, 3.7, 0.4, 0.5, 0.1, 0.1)),
    "ak": Habit(66, 11, 0.67, (8, 14, 1, 15, 1.5, 40, 4, 0.5, 3, 6, 6, 1, 0.1, 0.1)),
    "scc": Habit(69, 12, 0.66, (10, 24, 1, 22, 1.5, 27, 4, 0.5, 3, 3, 4, 1, 0.1, 0.1)),
    "bkl": Habit(64, 14, 0.57, (18, 16, 7, 10, 4, 29, 7, 0.3, 3, 3, 1.3, 0.5, 0.2, 0.1)),
    "df": Habit(53, 13, 0.52, (2, 70, 1, 21, 3.5, 0.2, 0.5, 2, 0.2, 0.1, 0.2, 0.1, 1, 0.1)),
    "vasc": Habit(51, 20, 0.48, (16, 19, 22, 8, 19, 6, 4, 0.5, 2, 1.5, 3.5, 0.5, 0.5, 0.2)),
    "infectious": Habit(36, 20, 0.52, (10, 18, 10, 15, 7, 14, 7, 9, 4, 4, 6, 2, 4, 1)),
    "eczema": Habit(38, 20, 0.48, (10, 20, 8, 26, 6, 8, 4, 6, 6, 3, 16, 2, 1, 2)),
    "acne": Habit(22, 7, 0.50, (22, 0.5, 5, 3, 1, 55, 12, 0.1, 4, 1, 0.1, 0.5, 0.1, 0.1)),
    "pigment": Habit(40, 16, 0.40, (14, 10, 9, 12, 6, 32, 6, 3, 5, 1, 8, 0.5, 1, 0.5)),
}

MISSING_AGE, MISSING_SEX, MISSING_SITE = 0.02, 0.01, 0.03


def draw_patient(diagnosis: str, rng: np.random.Generator) -> Patient:
    """Draw the patient of one lesion.

    >>> draw_patient("acne", np.random.default_rng(0)).sex in {"male", "female", None}
    True
    """
    habit = HABITS[diagnosis]
    age = int(np.clip(5 * round(rng.normal(habit.age, habit.spread) / 5), 5, 85))
    sex = "male" if rng.random() < habit.male else "female"
    weights = np.array(habit.sites)
    site = LOCALIZATIONS[int(rng.choice(len(LOCALIZATIONS), p=weights / weights.sum()))]
    lost = rng.random(3) < (MISSING_AGE, MISSING_SEX, MISSING_SITE)
    return Patient(None if lost[0] else age, None if lost[1] else sex, None if lost[2] else site)
