"""One table of diagnoses, the label spaces made of them, and the maps between spaces.

Every label stands for a set of *entities*, the finest things we tell apart (``ak`` and ``scc`` are two entities, HAM10000's
``akiec`` is both). A map from one space to another exists when every source label lies inside exactly one target label, so
coarsening always works and splitting is refused, with no list of maps to maintain.

>>> ham7, binary = label_space("ham7"), label_space("binary")
>>> ham7.labels
('mel', 'nv', 'bcc', 'akiec', 'bkl', 'df', 'vasc')
>>> ham7.map_to(binary).labels([0, 1]).tolist()
[1, 0]

The words that data sets use (codes, full names, synonyms, other languages) are looked up by `resolve`, wherever they stand.

>>> resolve("Melanom").code, resolve("blue nevus").how, resolve("keratosis").code
('mel', 'a kind of nv', None)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesion_hub.diagnosis_names import ALIASES, AMBIGUOUS, KINDS, slug
from lesion_hub.errors import TaxonomyError

ABSTAIN = -1

# The spaces that say what is malignant, in the order in which they are tried. They differ in actinic keratosis.
MALIGNANCY_SPACES = ("binary", "binary_ak_benign")


@dataclass(frozen=True)
class Diagnosis:
    """A row of the table: a label's code, its full name, whether it is malignant, and the entities it covers.

    ``malignant`` is None where authors differ or the label says nothing about it (``ak``, ``unk``).
    """

    code: str
    name: str
    malignant: bool | None
    entities: frozenset[str]
    aliases: tuple[str, ...] = ()


def _row(code: str, name: str, malignant: bool | None, entities: str = "") -> Diagnosis:
    own = (entities or code).split()
    finer = (slug(kind) for entity in own for kind in KINDS.get(entity, ()))
    return Diagnosis(code, name, malignant, frozenset([*own, *finer]), ALIASES.get(code, ()))


_MALIGNANT_ENTITIES = "mel bcc scc clinical_malignant"
_BENIGN_ENTITIES = "nv sk lentigo lplk df vasc infectious eczema acne pigment clinical_benign"

DIAGNOSES: Mapping[str, Diagnosis] = MappingProxyType(
    {
        row.code: row
        for row in (
            _row("mel", "Melanoma", True),
            _row("nv", "Melanocytic nevus", False),
            _row("bcc", "Basal cell carcinoma", True),
            _row("akiec", "Actinic keratosis / intraepithelial carcinoma", True, "ak scc"),
            _row("ak", "Actinic keratosis", None),
            _row("bkl", "Benign keratosis-like lesion", False, "sk lentigo lplk"),
            _row("sk", "Seborrheic keratosis", False),
            _row("lentigo", "Lentigo", False),
            _row("lplk", "Lichen planus-like keratosis", False),
            _row("df", "Dermatofibroma", False),
            _row("vasc", "Vascular lesion", False),
            _row("scc", "Squamous cell carcinoma", True),
            _row("unk", "Unknown / none of the others", None),
            _row("benign", "Benign", False, _BENIGN_ENTITIES),
            _row("malignant", "Malignant", True, f"{_MALIGNANT_ENTITIES} ak"),
            _row("infectious", "Infectious skin disease", False),
            _row("eczema", "Eczema", False),
            _row("acne", "Acne", False),
            _row("pigment", "Other pigment disorder", False),
            _row("benign_pigmented", "Benign pigmented lesion", False, "clinical_benign"),
            _row("clinical_malignant", "Malignant lesion", True),
        )
    }
)

# The same words stand for other sets of entities where a space follows another convention.
_AK_BENIGN = (
    _row("benign", "Benign (actinic keratosis counted here)", False, f"{_BENIGN_ENTITIES} ak"),
    _row("malignant", "Malignant", True, _MALIGNANT_ENTITIES),
)
_CLINICAL_MALIGNANT = _row("malignant", "Malignant lesion", True, "clinical_malignant")


# ------------------------------------------------------------------------------------------------ words


@dataclass(frozen=True)
class Resolution:
    """What a word means: its ``diagnosis``, the ``code`` of the table's row, and ``how`` it was found; or None and why not.

    A diagnosis finer than any row, such as "blue nevus", has an entity of its own inside that row and shares its malignancy.
    """

    diagnosis: Diagnosis | None
    code: str | None
    how: str


def _known_words() -> dict[str, Resolution]:
    """Index the table by all of its words; codes win over names, names over aliases, and the earlier row over the later."""
    words = {slug(row.code): Resolution(row, row.code, "code") for row in DIAGNOSES.values()}
    for row in DIAGNOSES.values():
        words.setdefault(slug(row.name), Resolution(row, row.code, "name"))
    for row in DIAGNOSES.values():
        for alias in row.aliases:
            words.setdefault(slug(alias), Resolution(row, row.code, "alias"))
        for kind in KINDS.get(row.code, ()):
            finer = Diagnosis(kind, kind, row.malignant, frozenset([slug(kind)]))
            words.setdefault(slug(kind), Resolution(finer, row.code, f"a kind of {row.code}"))
    return {**words, **{slug(word): Resolution(None, None, f"ambiguous: {why}") for word, why in AMBIGUOUS.items()}}


_WORDS = MappingProxyType(_known_words())


def resolve(word: str) -> Resolution:
    """Look up a word of a data set: a code, full name or alias of the table, or a diagnosis inside one of its rows.

    >>> resolve("Basal-cell carcinoma").code, resolve("NEV").code, resolve("Mélanome").code
    ('bcc', 'nv', 'mel')
    >>> resolve("other").how
    'ambiguous: it holds several diagnoses'
    """
    return _WORDS.get(slug(word), Resolution(None, None, "not in the table"))


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of an error line: the closest known word, or all of them when none is close.

    >>> nearest("ham8", ["ham7", "isic8"])
    "did you mean 'ham7'?"
    """
    known = sorted(known)
    if not known:
        return "there is none yet"
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(known)


@dataclass(frozen=True)
class LabelSpace:
    """An ordered set of labels. The order is the order of a model's outputs."""

    name: str
    rows: tuple[Diagnosis, ...] = field(repr=False)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(row.code for row in self.rows)

    @property
    def descriptions(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.rows)

    @property
    def malignant(self) -> tuple[bool | None, ...]:
        return tuple(row.malignant for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, label: object) -> bool:
        return isinstance(label, str) and slug(label) in self._by_word

    @cached_property
    def _by_word(self) -> dict[str, int]:
        words = {slug(alias): i for i, row in enumerate(self.rows) for alias in row.aliases}
        words.update({slug(row.name): i for i, row in enumerate(self.rows)})
        words.update({slug(row.code): i for i, row in enumerate(self.rows)})
        return words

    def index(self, label: str) -> int:
        """Return the position of a label, by code, full name or alias, whatever its case.

        >>> label_space("isic8").index("SCC")
        7
        """
        try:
            return self._by_word[slug(label)]
        except KeyError:
            raise TaxonomyError(
                f"label {label!r} is not in label space {self.name!r}; {nearest(slug(label), self.labels)}"
            ) from None

    def map_to(self, target: LabelSpace | str) -> LabelMap:
        """Return the map that coarsens this space into ``target``; TaxonomyError where a label would have to be split.

        >>> label_space("isic8").map_to("ham7").matrix.shape
        (8, 7)
        """
        space = label_space(target) if isinstance(target, str) else target
        return LabelMap(self, space, tuple(_target_index(row, self, space) for row in self.rows))

    def maps_to(self, target: LabelSpace | str) -> bool:
        """Return whether ``map_to`` would succeed."""
        try:
            self.map_to(target)
        except TaxonomyError:
            return False
        return True

    @cached_property
    def malignancy_map(self) -> LabelMap | None:
        """The map to ``benign`` and ``malignant``, by the first convention that fits; None where the labels do not say.

        Its ``target`` is the convention, one of ``MALIGNANCY_SPACES``; labels that are neither (``unk``) abstain.

        >>> label_space("ham7").malignancy_map.indices
        (1, 0, 1, 1, 0, 0, 0)
        >>> label_space("binary_ak_benign").malignancy_map.target.name
        'binary_ak_benign'
        >>> space_from_names(["tinea", "vitiligo"]).malignancy_map is None
        True
        """
        return next((self.map_to(name) for name in MALIGNANCY_SPACES if self.maps_to(name)), None)


def _target_index(row: Diagnosis, source: LabelSpace, target: LabelSpace) -> int:
    homes = [i for i, other in enumerate(target.rows) if row.entities <= other.entities]
    if homes:
        # Of labels inside each other ("nevus" and "blue nevus", "benign" and "nevus") the narrowest, of equal ones its own.
        return min(homes, key=lambda i: (len(target.rows[i].entities), target.rows[i].code != row.code))
    if row.entities == {"unk"}:
        return ABSTAIN
    parts = [other.code for other in target.rows if row.entities & other.entities]
    why = f"it is split between {' and '.join(parts)} there" if len(parts) > 1 else "nothing there covers it"
    if len(parts) == 1:
        why = f"it is wider than {parts[0]!r} there"
    raise TaxonomyError(
        f"label space {source.name!r} does not map to {target.name!r}: {row.code!r} ({row.name}) has no single "
        f"place, {why}; use labels at least as fine as {target.name!r}"
    )


@dataclass(frozen=True)
class LabelMap:
    """A many-to-one map between label spaces, for label arrays and for probability arrays."""

    source: LabelSpace
    target: LabelSpace
    indices: tuple[int, ...]

    @cached_property
    def matrix(self) -> NDArray[np.float64]:
        """The matrix (C_source, C_target) of 0 and 1; the row of a label that abstains is all zero."""
        matrix = np.zeros((len(self.source), len(self.target)))
        for i, j in enumerate(self.indices):
            if j != ABSTAIN:
                matrix[i, j] = 1.0
        return matrix

    def labels(self, labels: ArrayLike) -> NDArray[np.int64]:
        """Map integer labels of any shape in [0, C_source); ABSTAIN (-1) in, and ``unk``, give ABSTAIN out."""
        values = np.asarray(labels, dtype=np.int64)
        if values.size and (values.min() < ABSTAIN or values.max() >= len(self.source)):
            raise TaxonomyError(
                f"labels for space {self.source.name!r} must lie in 0..{len(self.source) - 1}, "
                f"got {values.min()}..{values.max()}; check which label space they were written in"
            )
        return np.append(np.asarray(self.indices, dtype=np.int64), ABSTAIN)[values]

    def probabilities(self, probabilities: ArrayLike) -> NDArray[np.float64]:
        """Map (..., C_source) probabilities to (..., C_target); each row keeps its mass.

        The mass of a label that abstains is shared among the targets in proportion to theirs, which is the distribution
        given that the lesion is one of them; a row whose whole mass abstains becomes uniform.
        """
        values = np.asarray(probabilities, dtype=np.float64)
        if values.ndim == 0 or values.shape[-1] != len(self.source):
            raise TaxonomyError(
                f"probabilities for space {self.source.name!r} need {len(self.source)} columns, got shape {values.shape}"
            )
        mapped = values @ self.matrix
        if ABSTAIN not in self.indices:
            return mapped
        total, kept = values.sum(-1, keepdims=True), mapped.sum(-1, keepdims=True)
        silent = kept <= 1e-12 * np.maximum(total, 1e-300)
        shared = np.divide(mapped * total, kept, out=np.zeros_like(mapped), where=~silent)
        return np.where(silent, total / len(self.target), shared)


def _space(name: str, rows: str | Sequence[str | Diagnosis]) -> LabelSpace:
    items = rows.split() if isinstance(rows, str) else rows
    return LabelSpace(name, tuple(DIAGNOSES[row] if isinstance(row, str) else row for row in items))


LABEL_SPACES: Mapping[str, LabelSpace] = MappingProxyType(
    {
        space.name: space
        for space in (
            _space("ham7", "mel nv bcc akiec bkl df vasc"),
            _space("isic8", "mel nv bcc ak bkl df vasc scc"),
            _space("isic9", "mel nv bcc ak bkl df vasc scc unk"),
            _space("isic2017", "mel sk nv"),
            _space("binary", "benign malignant"),
            _space("binary_ak_benign", _AK_BENIGN),
            _space("clinical6", ["infectious", "eczema", "acne", "pigment", "benign_pigmented", _CLINICAL_MALIGNANT]),
        )
    }
)


def label_space(name: str) -> LabelSpace:
    """Return the label space of that name.

    >>> len(label_space("isic9"))
    9
    """
    try:
        return LABEL_SPACES[name]
    except KeyError:
        raise TaxonomyError(f"unknown label space {name!r}; {nearest(name, LABEL_SPACES)}") from None


def space_from_names(names: Iterable[str], name: str = "custom") -> LabelSpace:
    """Return the named space whose labels these are (by code, name or alias), else a custom space in sorted order.

    The labels of a custom space are the words as they are written, codes of the table in lower case. What `resolve` knows of
    a word gives it its entities, so a folder tree ``melanoma/ nevus/`` maps to ``binary``; any other word is an entity of its
    own and maps nowhere.

    >>> space_from_names(["benign", "malignant"]).name
    'binary'
    >>> space_from_names(["tinea", "vitiligo"]).labels
    ('tinea', 'vitiligo')
    >>> custom = space_from_names(["Melanom", "nevus"])
    >>> custom.labels, custom.map_to("binary").indices
    (('Melanom', 'nevus'), (1, 0))
    """
    words = sorted(str(word) for word in names)
    if not words:
        raise TaxonomyError("a label space needs at least one label; the folder or column that names classes is empty")
    meanings = [slug(known.code if (known := resolve(word).diagnosis) is not None else word) for word in words]
    if len(set(meanings)) != len(meanings):
        meaning = next(meaning for meaning in meanings if meanings.count(meaning) > 1)
        one, other, *_ = twins = [word for word, own in zip(words, meanings, strict=True) if own == meaning]
        raise TaxonomyError(
            f"class names {', '.join(map(repr, twins))} are the same label ({meaning}); read into a space that unites such "
            f"names (--space ham7), or give them one name (--label {one!r}={other!r}; folders: rename)"
        )
    for space in LABEL_SPACES.values():
        if all(word in space for word in words) and {space.index(word) for word in words} == set(range(len(space))):
            return space
    return LabelSpace(name, tuple(_custom_row(_label_of(word)) for word in words))


def _label_of(word: str) -> str:
    """Return the label that a word is in a custom space: itself, or a code of the table in lower case."""
    found = resolve(word)
    return str(found.code) if found.how == "code" and found.code not in ("benign", "malignant") else word


def _custom_row(label: str) -> Diagnosis:
    """Return the row of a custom space whose code is ``label`` as it stands; what is known of the word is taken over."""
    known = resolve(label).diagnosis
    if known is None:
        return Diagnosis(label, label, None, frozenset([f"custom:{label}"]))
    if known.code == label:
        return known
    return Diagnosis(label, label, known.malignant, known.entities, (known.code, known.name, *known.aliases))


def space_from_labels(name: str, labels: Sequence[str]) -> LabelSpace:
    """Rebuild a space from what a config stores; the labels of a named space must be that space's, in its order."""
    if name not in LABEL_SPACES:
        return LabelSpace(name, tuple(_custom_row(label) for label in labels))
    space = LABEL_SPACES[name]
    if tuple(labels) != space.labels:
        raise TaxonomyError(
            f"labels {list(labels)} are not those of label space {name!r} ({', '.join(space.labels)}); "
            "name another space or restore the order"
        )
    return space


def finest_common(spaces: Iterable[LabelSpace]) -> LabelSpace:
    """Return the finest space that every given space maps into: the one that tells most of their labels apart.

    Of several that tell as many apart, the given one comes first, in its own order of labels. A named space has to serve
    where no given one does; then it keeps the labels that some given space uses, and no others.

    >>> finest_common([label_space("isic8"), label_space("ham7")]).name
    'ham7'
    >>> finest_common([space_from_names(["mel", "nv", "bcc", "bkl"])] * 2).labels
    ('bcc', 'bkl', 'mel', 'nv')
    >>> finest_common([space_from_names(["mel", "nv"]), space_from_names(["bcc", "nv"])]).labels
    ('mel', 'nv', 'bcc')
    """
    given = list(dict.fromkeys(spaces))
    candidates = list(dict.fromkeys([*given, *LABEL_SPACES.values()]))
    common = [target for target in candidates if all(space.maps_to(target) for space in given)]
    if not common:
        names = ", ".join(space.name for space in given)
        raise TaxonomyError(f"no label space holds all of {names}; combine models of related label spaces")
    used = {target: {i for space in given for i in space.map_to(target).indices if i != ABSTAIN} for target in common}
    finest = max(common, key=lambda target: (len(used[target]), -candidates.index(target)))
    if finest in given or len(used[finest]) == len(finest):
        return finest
    rows = tuple(row for i, row in enumerate(finest.rows) if i in used[finest])
    narrowed = LabelSpace("custom", rows)
    # A config keeps labels alone; a row that they would not give back stays within its named space.
    return narrowed if len(rows) > 1 and space_from_labels("custom", narrowed.labels) == narrowed else finest


# ------------------------------------------------------------------------------------------------ patient and site words

SEXES = ("female", "male")
SITES = ("head/neck", "torso", "upper extremity", "lower extremity", "palms/soles", "oral/genital")

_SITE_WORDS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("head/neck", "head", "neck", "face", "scalp", "ear", "nose", "lip"), "head/neck"),
        **dict.fromkeys(("torso", "anterior_torso", "posterior_torso", "lateral_torso", "trunk"), "torso"),
        **dict.fromkeys(("abdomen", "back", "chest", "shoulder"), "torso"),
        **dict.fromkeys(("upper_extremity", "arm", "forearm", "hand"), "upper extremity"),
        **dict.fromkeys(("lower_extremity", "leg", "thigh", "foot"), "lower extremity"),
        **dict.fromkeys(("palms/soles", "acral"), "palms/soles"),
        **dict.fromkeys(("oral/genital", "genital"), "oral/genital"),
    }
)


def canonical_site(text: Any) -> str | None:
    """Return the body site as one of `SITES`, or None when it is missing or unknown.

    >>> canonical_site("posterior torso"), canonical_site("unknown")
    ('torso', None)
    """
    return None if text is None else _SITE_WORDS.get(slug(text))


_SEX_WORDS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            ("f", "female", "w", "weiblich", "frau", "femme", "feminin", "mujer", "femenino", "feminino"), "female"
        ),
        **dict.fromkeys(("femmina", "femminile", "kadin", "kadın", "woman"), "female"),
        **dict.fromkeys(("m", "male", "mannlich", "mann", "homme", "masculin", "hombre", "masculino", "maschio"), "male"),
        **dict.fromkeys(("maschile", "erkek", "man"), "male"),
    }
)


def canonical_sex(text: Any) -> str | None:
    """Return ``male`` or ``female``, or None when it is missing or unknown.

    >>> canonical_sex("F"), canonical_sex("unknown")
    ('female', None)
    """
    return None if text is None else _SEX_WORDS.get(slug(text))
