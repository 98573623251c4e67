"""The diagnoses that can be drawn: what their lesions look like and which patients have them, one row per diagnosis.

A number is drawn evenly from its (low, high). ``structures`` holds, for each dermoscopic structure, how often it is present
and how strong it then is; the rows overlap on purpose, so that no single sign gives a diagnosis away.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Range = tuple[float, float]


@dataclass(frozen=True)
class Appearance:
    """What lesions of one diagnosis look like.

    ``radius`` is a fraction of the image's shorter side; ``wobble`` bends the outline, ``ragged`` frays it and ``soft``
    fades it (fractions of the radius); ``melanin`` and ``blood`` are densities, ``patchy`` their unevenness;
    ``dome`` how far the lesion rises; ``scatter`` how many separate spots it has (1 is a single lesion).
    """

    radius: Range
    wobble: Range
    ragged: Range
    soft: Range
    melanin: Range
    blood: Range
    patchy: Range
    stretch: Range = (0.72, 1.0)
    dome: Range = (0.0, 0.0)
    scatter: tuple[int, int] = (1, 1)
    structures: dict[str, tuple[float, float, float]] = field(default_factory=dict)


APPEARANCES: dict[str, Appearance] = {
    "nv": Appearance(
        radius=(0.13, 0.31),
        wobble=(0.02, 0.10),
        ragged=(0.02, 0.09),
        soft=(0.15, 0.45),
        melanin=(0.40, 1.25),
        blood=(0.05, 0.50),
        patchy=(0.05, 0.22),
        structures={
            "network": (0.60, 0.35, 0.9),
            "globules": (0.40, 0.4, 0.9),
            "central_shade": (0.5, -0.3, 0.5),
            "blue_white_veil": (0.04, 0.2, 0.4),
            "streaks": (0.05, 0.3, 0.5),
            "milia": (0.06, 0.3, 0.6),
        },
    ),
    "mel": Appearance(
        radius=(0.16, 0.36),
        wobble=(0.08, 0.24),
        ragged=(0.07, 0.22),
        soft=(0.08, 0.30),
        melanin=(0.50, 1.35),
        blood=(0.10, 0.55),
        patchy=(0.30, 0.75),
        stretch=(0.6, 1.0),
        structures={
            "atypical_network": (0.65, 0.5, 1.0),
            "blotches": (0.65, 0.6, 1.3),
            "blue_white_veil": (0.55, 0.35, 0.75),
            "streaks": (0.40, 0.5, 1.0),
            "irregular_dots": (0.50, 0.5, 1.0),
            "regression": (0.35, 0.3, 0.65),
            "milia": (0.06, 0.3, 0.6),
        },
    ),
    "bcc": Appearance(
        radius=(0.12, 0.30),
        wobble=(0.05, 0.18),
        ragged=(0.05, 0.18),
        soft=(0.18, 0.5),
        melanin=(0.00, 0.22),
        blood=(0.12, 0.50),
        patchy=(0.10, 0.4),
        dome=(0.02, 0.1),
        structures={
            "arborising_vessels": (0.80, 0.5, 1.1),
            "nests": (0.55, 0.5, 1.0),
            "ulcer": (0.30, 0.5, 1.0),
            "white_streaks": (0.35, 0.4, 0.8),
            "scale": (0.12, 0.2, 0.5),
        },
    ),
    "ak": Appearance(
        radius=(0.17, 0.38),
        wobble=(0.06, 0.20),
        ragged=(0.12, 0.30),
        soft=(0.25, 0.6),
        melanin=(0.02, 0.40),
        blood=(0.20, 0.55),
        patchy=(0.25, 0.6),
        structures={
            "red_pseudonetwork": (0.85, 0.6, 1.1),
            "scale": (0.70, 0.4, 1.0),
            "irregular_dots": (0.12, 0.3, 0.6),
            "crust": (0.15, 0.3, 0.6),
        },
    ),
    "scc": Appearance(
        radius=(0.14, 0.32),
        wobble=(0.05, 0.18),
        ragged=(0.05, 0.18),
        soft=(0.18, 0.5),
        melanin=(0.00, 0.30),
        blood=(0.30, 0.70),
        patchy=(0.20, 0.5),
        dome=(0.04, 0.14),
        structures={
            "keratin": (0.70, 0.5, 1.0),
            "white_circles": (0.60, 0.5, 1.0),
            "dotted_vessels": (0.55, 0.5, 1.0),
            "ulcer": (0.30, 0.5, 1.0),
            "scale": (0.55, 0.4, 0.9),
            "red_pseudonetwork": (0.20, 0.3, 0.7),
        },
    ),
    "bkl": Appearance(
        radius=(0.14, 0.36),
        wobble=(0.05, 0.18),
        ragged=(0.10, 0.26),
        soft=(0.06, 0.22),
        melanin=(0.22, 0.95),
        blood=(0.02, 0.30),
        patchy=(0.10, 0.40),
        stretch=(0.6, 1.0),
        dome=(0.0, 0.06),
        structures={
            "milia": (0.65, 0.5, 1.0),
            "comedones": (0.60, 0.5, 1.0),
            "ridges": (0.50, 0.4, 1.0),
            "network": (0.08, 0.2, 0.5),
            "scale": (0.10, 0.2, 0.5),
            "blotches": (0.12, 0.3, 0.6),
        },
    ),
    "df": Appearance(
        radius=(0.12, 0.28),
        wobble=(0.02, 0.09),
        ragged=(0.04, 0.13),
        soft=(0.3, 0.6),
        melanin=(0.20, 0.65),
        blood=(0.08, 0.45),
        patchy=(0.05, 0.22),
        structures={
            "white_centre": (0.88, 0.4, 0.85),
            "rim_network": (0.75, 0.4, 0.9),
            "globules": (0.10, 0.3, 0.5),
            "dotted_vessels": (0.15, 0.3, 0.6),
        },
    ),
    "vasc": Appearance(
        radius=(0.09, 0.27),
        wobble=(0.03, 0.14),
        ragged=(0.01, 0.06),
        soft=(0.06, 0.22),
        melanin=(0.00, 0.25),
        blood=(0.45, 1.35),
        patchy=(0.08, 0.30),
        dome=(0.02, 0.08),
        structures={
            "lacunae": (0.90, 0.6, 1.1),
            "clot": (0.35, 0.6, 1.6),
            "white_septa": (0.40, 0.3, 0.7),
            "blue_white_veil": (0.12, 0.2, 0.4),
        },
    ),
    "infectious": Appearance(
        radius=(0.18, 0.38),
        wobble=(0.06, 0.2),
        ragged=(0.16, 0.34),
        soft=(0.2, 0.45),
        melanin=(0.00, 0.20),
        blood=(0.25, 0.65),
        patchy=(0.15, 0.45),
        structures={
            "pustules": (0.75, 0.6, 1.1),
            "crust": (0.70, 0.5, 1.0),
            "satellites": (0.55, 0.4, 0.9),
            "ulcer": (0.12, 0.4, 0.8),
            "scale": (0.2, 0.2, 0.6),
        },
    ),
    "eczema": Appearance(
        radius=(0.26, 0.5),
        wobble=(0.08, 0.25),
        ragged=(0.22, 0.42),
        soft=(0.4, 0.8),
        melanin=(0.00, 0.25),
        blood=(0.2, 0.6),
        patchy=(0.25, 0.6),
        structures={
            "scale": (0.75, 0.4, 1.0),
            "scratches": (0.50, 0.4, 1.0),
            "thick_lines": (0.50, 0.3, 0.8),
            "crust": (0.18, 0.2, 0.5),
            "satellites": (0.2, 0.3, 0.6),
        },
    ),
    "acne": Appearance(
        radius=(0.26, 0.42),
        wobble=(0.0, 0.1),
        ragged=(0.02, 0.07),
        soft=(0.6, 1.1),
        melanin=(0.00, 0.15),
        blood=(0.3, 0.75),
        patchy=(0.05, 0.25),
        dome=(0.03, 0.08),
        scatter=(4, 11),
        structures={
            "papule_heads": (0.75, 0.5, 1.0),
            "blackheads": (0.6, 0.4, 1.0),
            "satellites": (0.25, 0.3, 0.6),
        },
    ),
    "pigment": Appearance(
        radius=(0.24, 0.44),
        wobble=(0.05, 0.25),
        ragged=(0.06, 0.22),
        soft=(0.12, 0.5),
        melanin=(0.14, 0.48),
        blood=(0.00, 0.06),
        patchy=(0.05, 0.25),
        scatter=(1, 7),
        structures={"hypopigmentation": (0.25, 0.5, 1.0), "freckling": (0.35, 0.3, 0.8)},
    ),
}


# HAM10000's words for the site of a lesion, and ISIC 2019's for the same.
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
LOCALIZATIONS = tuple(ISIC_SITES)


@dataclass(frozen=True)
class Patient:
    """Age in years (a multiple of 5), sex and site (HAM10000's words); None where it is not recorded."""

    age: int | None
    sex: str | None
    localization: str | None


@dataclass(frozen=True)
class Demographics:
    """The patients with a diagnosis: mean age and its deviation, the share of men, and weights of ``LOCALIZATIONS``."""

    age: float
    spread: float
    male: float
    sites: tuple[float, ...]


DEMOGRAPHICS: dict[str, Demographics] = {
    "nv": Demographics(46, 15, 0.51, (21, 22, 19, 10, 13, 1.5, 3, 4, 1.2, 0.7, 0.8, 0.5, 0.7, 0.3)),
    "mel": Demographics(61, 15, 0.62, (29, 17, 4, 19, 6, 9, 6, 2.5, 2.6, 1.3, 0.3, 1.5, 0.1, 0.2)),
    "bcc": Demographics(67, 13, 0.62, (36, 11, 2, 10, 3.5, 20, 9, 0.8, 2.7, 3.7, 0.4, 0.5, 0.1, 0.1)),
    "ak": Demographics(66, 11, 0.67, (8, 14, 1, 15, 1.5, 40, 4, 0.5, 3, 6, 6, 1, 0.1, 0.1)),
    "scc": Demographics(69, 12, 0.66, (10, 24, 1, 22, 1.5, 27, 4, 0.5, 3, 3, 4, 1, 0.1, 0.1)),
    "bkl": Demographics(64, 14, 0.57, (18, 16, 7, 10, 4, 29, 7, 0.3, 3, 3, 1.3, 0.5, 0.2, 0.1)),
    "df": Demographics(53, 13, 0.52, (2, 70, 1, 21, 3.5, 0.2, 0.5, 2, 0.2, 0.1, 0.2, 0.1, 1, 0.1)),
    "vasc": Demographics(51, 20, 0.48, (16, 19, 22, 8, 19, 6, 4, 0.5, 2, 1.5, 3.5, 0.5, 0.5, 0.2)),
    "infectious": Demographics(36, 20, 0.52, (10, 18, 10, 15, 7, 14, 7, 9, 4, 4, 6, 2, 4, 1)),
    "eczema": Demographics(38, 20, 0.48, (10, 20, 8, 26, 6, 8, 4, 6, 6, 3, 16, 2, 1, 2)),
    "acne": Demographics(22, 7, 0.50, (22, 0.5, 5, 3, 1, 55, 12, 0.1, 4, 1, 0.1, 0.5, 0.1, 0.1)),
    "pigment": Demographics(40, 16, 0.40, (14, 10, 9, 12, 6, 32, 6, 3, 5, 1, 8, 0.5, 1, 0.5)),
}

MISSING_AGE, MISSING_SEX, MISSING_SITE = 0.02, 0.01, 0.03


def patient_of(diagnosis: str, seed: int) -> Patient:
    """Return the patient of the lesion that ``seed`` stands for, without drawing the lesion.

    >>> patient_of("acne", seed=0).sex in {"male", "female", None}
    True
    """
    rng = np.random.default_rng((seed, 4))
    group = DEMOGRAPHICS[diagnosis]
    age = int(np.clip(5 * round(rng.normal(group.age, group.spread) / 5), 5, 85))
    sex = "male" if rng.random() < group.male else "female"
    weights = np.array(group.sites)
    site = LOCALIZATIONS[int(rng.choice(len(LOCALIZATIONS), p=weights / weights.sum()))]
    lost = rng.random(3) < (MISSING_AGE, MISSING_SEX, MISSING_SITE)
    return Patient(None if lost[0] else age, None if lost[1] else sex, None if lost[2] else site)
