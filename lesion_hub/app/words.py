"""The texts of the page, and numbers in words. A model estimates: no text tells anybody that a lesion needs no doctor."""

from __future__ import annotations

import math

from lesion_hub.config import OperatingPoint
from lesion_hub.data.quality import FLAGS
from lesion_hub.hub.wording import DISCLAIMER
from lesion_hub.inference.label_sets import LabelSet

TITLE = "Skin lesion classifier"
SUBTITLE = "A research demo. It shows what a model estimates from one image, how sure it is, and where it looks."
NOTICE = (
    f"{DISCLAIMER}. For research and education only. The estimate is not a diagnosis. "
    "See a doctor about any lesion that is new, changes, bleeds or worries you, whatever is estimated here."
)
OUR_FAULT = "Something went wrong on our side. The error has been logged without your image; please try again."
BEFORE = "Choose an image and press Analyse; the estimate appears here."
CANCELLING = "Cancelling: the image at hand is finished; then all rows so far can be downloaded."
CANCELLED = "Cancelled. The files to download and the rows below hold the images that were done; the others were not analysed."
STOPPED = "The batch stopped here. The files to download and the rows below hold the images that were done before."
NOTHING_RUNS = "No batch of yours is being analysed now."
WRONG_VALUES = 'The values of the call do not fit this endpoint; the page describes it under "Use via API".'
PRIVACY = "Your image is held in memory while it is analysed, and is then gone. It is never written to a disk."

PRIVACY_IN_BROWSER = "Your image stays on this device: this page computes in your browser, sends nothing, and keeps no picture."

_NO_BREAK = "\N{NO-BREAK SPACE}"

ADVICE = {
    "tiny": "Use a larger image.",
    "blurred": "Take a sharper picture.",
    "dark": "Take it in better light.",
    "bright": "Take it with less light or less flash.",
    "low_contrast": "Check that the lesion is in the picture.",
    "not_skin_like": "The estimate means nothing for pictures of other things.",
}
NOT_DERMOSCOPY = "This does not look like a dermoscopic image of skin"

OUT_OF_SCOPE = "This does not look like a close-up of a skin lesion"
UNSURE = "This may not be a picture that the model was made for"
REFUSED_BECAUSE = (
    "What the networks see in it is unlike the images that they were trained on. The model answers whatever it is shown, so "
    "its answer to this picture means nothing. Use a sharp close-up of one lesion, best through a dermatoscope."
)
HELD_BACK = "Show what the model answers all the same"
UNSURE_BECAUSE = (
    "What the networks see in it is rare among the images that they were trained on, so take the estimate with great caution. "
    "Check that one lesion fills the middle of a sharp picture."
)

HEAT_MEANS = (
    "Red and yellow mark the regions that raised the model's score for the label; blue ones mattered less, "
    "and uncoloured ones hardly or not at all. What lies outside the part that the networks see has no colour either."
)
HEAT_DOES_NOT_MEAN = (
    "The colours do not outline the lesion, do not mark a diseased area, and do not show whether the estimate is right. "
    "Each map is scaled to its own maximum, so the colours of two maps cannot be compared."
)
NO_HEAT = "Nothing in this image raised the score for this label, so the map is empty."
SINGLE = "A single model: there are no other members to compare it with."
DISAGREEMENT = (
    (0.1, "The members say nearly the same."),
    (0.3, "The members differ somewhat: look at each one's own view."),
    (math.inf, "The members contradict each other: take the combined estimate with great caution."),
)
"""What to say of a disagreement that is below each limit, the first that fits."""
NO_METADATA = "This model looks at the image alone: age, sex and site are not used."
METADATA = "Optional. The model was trained to take them into account."
ABSTAINS = "The labels of this model say nothing about malignancy."
NO_SETS = "Label sets are not fitted for this model: there is no promise of which labels this image may have."
MODEL_ABSTAINS = "The model abstains."
NO_POINTS = "No operating point is stored with this model: the score has no threshold to be compared with."


def percent(value: float) -> str:
    r"""Format a probability; 0 % and 100 % are never claimed.

    >>> percent(0.123), percent(0.9999), percent(0.0001)
    ('12\xa0%', '>\xa099\xa0%', '<\xa01\xa0%')
    """
    sign = ">" if value > 0.99 else "<" if value < 0.01 else ""
    shown = f"{sign} {min(max(value, 0.01), 0.99):.0%}".strip()
    return shown.replace("%", " %").replace(" ", _NO_BREAK)


def share(value: float) -> str:
    r"""Format a share of one as a percentage, with no more digits than it needs.

    >>> share(0.95), share(0.1234)
    ('95\xa0%', '12.3\xa0%')
    """
    return f"{100 * value:.3g}{_NO_BREAK}%"


def decision(point: OperatingPoint, malignancy: float) -> str:
    """Say on which side of an operating point the score lies, what that does not mean, and how the point was chosen."""
    reached, below = decisions(point)
    return reached if malignancy >= point.threshold else below


def decisions(point: OperatingPoint) -> tuple[str, str]:
    """Say what holds at or above an operating point, and below it."""
    threshold = share(point.threshold)
    what = "malignant lesions reach it" if point.metric == "sensitivity" else "other lesions stay below it"
    chosen = f"Chosen on {point.chosen_on} images so that {share(point.target)} of the {what}."
    return (
        f"At or above the threshold of {threshold}: images like this are flagged as suspicious. {chosen}",
        f"Below the threshold of {threshold}. That does not rule anything out. {chosen}",
    )


def label_set(found: LabelSet) -> str:
    """Say which labels a set names.

    >>> label_set(LabelSet(("mel", "bkl"), 0.9, (), {"mel": "Melanoma", "bkl": "Benign keratosis"}))
    'One of melanoma, benign keratosis'
    """
    said = str(found)
    return f"{said[0].upper()}{said[1:]}"


def set_promise(found: LabelSet) -> str:
    """Say what a label set promises, what it does not, and for which labels there were too few lesions to promise anything."""
    promise = (
        f"Of new lesions like those of the model's validation data, {share(found.coverage)} have their label in this set, "
        f"whichever label that is; {share(1 - found.coverage)} do not. Other cameras, clinics and skin may fare worse."
    )
    if not found.unpromised:
        return promise
    few = ", ".join(found.names.get(label, label) for label in found.unpromised)
    return f"{promise} No promise for {few}: too few lesions to fit one."


def abstention(error: float) -> str:
    """Say why a model keeps silent, and what the estimates below are worth then."""
    return (
        f"It is more unsure of this image than of those that it may answer if at most {share(error)} of its answers shall be "
        "wrong. What is estimated below should not be relied on."
    )


def point_title(point: OperatingPoint) -> str:
    r"""Name an operating point for people.

    >>> point_title(OperatingPoint(threshold=0.2, metric="sensitivity", target=0.9))
    '90\xa0% sensitivity'
    """
    return f"{share(point.target)} {point.metric}"


def disagreement(value: float | None) -> str:
    """Say how far apart the members are; ``value`` is in [0, 1], None for a single model."""
    if value is None:
        return SINGLE
    return next(text for limit, text in DISAGREEMENT if value < limit)


def warning(flag: str) -> tuple[str, str]:
    """Return (what is wrong, what to do) for a quality flag."""
    if flag == "not_skin_like":
        return f"{NOT_DERMOSCOPY}: {FLAGS[flag]}.", ADVICE[flag]
    return f"{FLAGS[flag][0].upper()}{FLAGS[flag][1:]}.", ADVICE[flag]
