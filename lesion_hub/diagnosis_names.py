"""What data sets call the diagnoses of `lesion_hub.taxonomy`: synonyms, finer diagnoses, and words that name no single one.

The names are those of HAM10000, the ISIC archive and challenges, BCN20000, MSK, PAD-UFES-20, Derm7pt and PH2, and the common
ones in German, Spanish, French, Portuguese, Italian and Turkish. `lesion_hub.taxonomy.resolve` looks words up in them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType


def slug(text: str) -> str:
    """Return the form in which words are compared: without case and accents, with spaces, ``_`` and ``-`` alike.

    >>> slug("Basal-cell  carcinoma") == slug("basal_cell_carcinoma"), slug("Nävus"), slug("Mélanome")
    (True, 'navus', 'melanome')
    """
    letters = unicodedata.normalize("NFKD", str(text).strip().casefold())
    # Accents of Latin letters alone: elsewhere such marks make other letters.
    plain = unicodedata.normalize("NFKC", re.sub("([a-z])[\u0300-\u036f]+", r"\1", letters))
    return re.sub(r"[\s_\-]+", "_", plain)


def _lists(**texts: str) -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType({code: tuple(" ".join(text.split()).split("; ")) for code, text in texts.items()})


ALIASES = _lists(
    mel="""melanoma; melanomas; melanoma, nos; malignant melanoma; melanom; malignes melanom; mélanome; mélanome malin;
        melanoma maligno""",
    nv="""nev; nevus; naevus; nevi; naevi; melanocytic nevi; melanocytic naevus; melanocytic naevi; nevus, nos; mole; moles;
        nävus; nävi; melanozytärer nävus; melanozytäre nävi; muttermal; nævus; nævi; naevus mélanocytaire;
        nævus mélanocytaire; nevo; nevos; nevo melanocítico; nevi melanocitici; nevüs; melanositik nevüs""",
    bcc="""basal cell carcinoma, nos; basalzellkarzinom; basaliom; carcinome basocellulaire; carcinoma basocelular;
        carcinoma de células basales; carcinoma basocellulare; basalioma; bazal hücreli karsinom""",
    ak="""ack; actinic keratoses; solar keratosis; solar or actinic keratosis; aktinische keratose; kératose actinique;
        queratosis actínica; queratose actínica; ceratose actínica; cheratosi attinica; aktinik keratoz""",
    bkl="benign keratosis; benign keratosis-like lesions; pigmented benign keratosis",
    sk="""sek; seborrheic keratoses; seborrhoeic keratosis; seborrhoeic keratoses; seborrhoische keratose; alterswarze;
        verruca seborrhoica; kératose séborrhéique; queratosis seborreica; queratose seborreica; ceratose seborreica;
        cheratosi seborroica; seboreik keratoz""",
    lentigo="solar lentigo; lentigo nos; lentigo, nos; lentigo simplex; lentigines",
    lplk="lichenoid keratosis; lichen planus like keratosis",
    df="dermatofibromas; dermatofibrom; dermatofibrome",
    vasc="""vascular; vascular lesions; vaskuläre läsion; gefäßläsion; lésion vasculaire; lesión vascular; lesão vascular;
        lesione vascolare""",
    scc="""squamous cell carcinoma, nos; plattenepithelkarzinom; spinaliom; carcinome épidermoïde; carcinome spinocellulaire;
        carcinoma espinocelular; carcinoma epidermoide; carcinoma de células escamosas; carcinoma spinocellulare;
        spinalioma; skuamöz hücreli karsinom""",
    unk="unknown",
    benign="benigne; benigno; benigna; benign lesion; gutartig; bénin; bénigne; iyi huylu",
    malignant="malign; maligne; maligno; maligna; bösartig; malin; kötü huylu",
    infectious="enfeksiyonel; infection",
    eczema="ekzama; egzama; ekzem; eccema; eczéma",
    acne="akne; acné",
    pigment="pigmented; pigmentary",
    benign_pigmented="benign",
    clinical_malignant="malign; malignant",
)
"""Code -> words that mean exactly that diagnosis."""

KINDS = _lists(
    mel="""melanoma in situ; melanoma (in situ); melanoma invasive; melanoma, invasive; melanoma metastasis;
        metastatic melanoma; melanoma (less than 0.76 mm); melanoma (0.76 to 1.5 mm); melanoma (more than 1.5 mm);
        lentigo maligna; lentigo maligna melanoma; superficial spreading melanoma; nodular melanoma; acral melanoma;
        acral lentiginous melanoma; amelanotic melanoma""",
    nv="""blue nevus; clark nevus; combined nevus; congenital nevus; dermal nevus; recurrent nevus; reed or spitz nevus;
        reed nevus; spitz nevus; common nevus; atypical nevus; dysplastic nevus; junctional nevus; compound nevus;
        intradermal nevus; halo nevus; acral nevus; nevus spilus""",
    bcc="""basal cell carcinoma, nodular; basal cell carcinoma, superficial; basal cell carcinoma, infiltrating;
        nodular basal cell carcinoma; superficial basal cell carcinoma; pigmented basal cell carcinoma""",
    scc="""squamous cell carcinoma in situ; squamous cell carcinoma, in situ; squamous cell carcinoma, invasive;
        bowen's disease; bowen disease; morbus bowen; keratoacanthoma""",
    vasc="""hemangioma; haemangioma; angioma; cherry angioma; angiokeratoma; pyogenic granuloma; hämangiom; angiom;
        angiokeratom; hémangiome; angiome; emangioma""",
)
"""Entity -> diagnoses inside it that no label space of ours tells apart. Each is an entity of its own."""

_KERATOSIS = "it may be actinic or seborrheic"
_CARCINOMA = "it may be basal or squamous cell carcinoma"
_SEVERAL = "it holds several diagnoses"
_PIGMENTED = "a pigmented lesion may be anything from nevus to melanoma"
_NEITHER = "it is neither benign nor malignant"

AMBIGUOUS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("keratosis", "keratose", "kératose", "queratosis", "queratose", "cheratosi"), _KERATOSIS),
        **dict.fromkeys(("carcinoma", "karzinom", "carcinome", "nmsc", "non-melanoma skin cancer"), _CARCINOMA),
        **dict.fromkeys(("cancer", "skin cancer"), "it may be any malignant diagnosis"),
        **dict.fromkeys(("misc", "miscellaneous", "other", "others", "sonstige", "andere", "otros", "autre"), _SEVERAL),
        **dict.fromkeys(("pigmented", "pigmentary"), _PIGMENTED),
        **dict.fromkeys(("verruca", "warze"), "it may be a viral wart or a seborrheic keratosis"),
        **dict.fromkeys(("atypical melanocytic proliferation", "aimp"), "it is neither nevus nor melanoma"),
        **dict.fromkeys(("non-neoplastic", "indeterminate"), _NEITHER),
        "melanosis": "it may be of several kinds, benign or not",
    }
)
"""Word -> why it names no single diagnosis."""
