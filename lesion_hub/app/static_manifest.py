"""``model.json`` of the static page: what makes of the graphs' outputs what ``predict`` gives, and puts it in words.

A set of labels, a verdict on the picture and the model's silence are shown where the model has the limits of them.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lesion_hub import __version__
from lesion_hub.app import words
from lesion_hub.app.options import AppOptions
from lesion_hub.data import quality
from lesion_hub.errors import TaxonomyError
from lesion_hub.hub.gate_file import GateWeights
from lesion_hub.inference import Predictor
from lesion_hub.inference.abstention import fitted_error, limit_for
from lesion_hub.inference.attribution import METHODS, target_labels
from lesion_hub.inference.gate import limits_of
from lesion_hub.inference.label_sets import COVERAGE, LabelSet, least_probabilities, unpromised
from lesion_hub.inference.members import SMALLEST_PROBABILITY, Member
from lesion_hub.inference.results import palette
from lesion_hub.models.network_cut import EndCut, cut
from lesion_hub.taxonomy import LabelMap, LabelSpace

FORMAT_VERSION = 1


def manifest(predictor: Predictor, graphs: Sequence[Mapping[str, Any]], runtime: Mapping[str, Any]) -> dict[str, Any]:
    """Gather what ``model.json`` holds; ``graphs`` says of each member's file its name, sha256 and bytes."""
    space, how, limits = predictor.space, predictor.combination, AppOptions()
    return {
        "format_version": FORMAT_VERSION,
        "made_by": f"lesion-hub {__version__}",
        "name": predictor.name,
        "version": predictor.revision,
        "title": predictor.title,
        "labels": _labels(space),
        "targets": _targets(space),
        "malignancy": _malignancy(space),
        "members": [
            {
                "name": member.name,
                "labels": _labels(member.space),
                "to_labels": _map(mapping),
                "weight": weight,
                "framing": asdict(member.framing),
                "graph": dict(graph),
            }
            for member, mapping, weight, graph in zip(predictor.members, how.maps, how.weights, graphs, strict=True)
        ],
        "combine": how.combine,
        "temperature": how.temperature,
        "smallest_probability": SMALLEST_PROBABILITY,
        "operating_points": [
            {
                "name": name,
                "title": words.point_title(point),
                "threshold": point.threshold,
                **dict(zip(("reached", "below"), words.decisions(point), strict=True)),
            }
            for name, point in predictor.operating_points.items()
        ],
        "label_sets": label_sets(predictor),
        "gate": gate(predictor),
        "abstention": abstention(predictor, limits.abstain),
        "quality": _quality(),
        "limits": {
            "bytes": limits.max_bytes,
            "pixels": limits.max_pixels,
            "files": limits.max_files,
            "side": limits.display_side,
        },
        "method": METHODS["gradcam"].title,
        "palette": base64.b64encode(palette()).decode("ascii"),
        "words": _words(),
        "runtime": dict(runtime),
    }


def label_sets(predictor: Predictor) -> dict[str, Any] | None:
    """Say from which probability on each label is in an answer's set (null: never); None where sets are not fitted."""
    fitted = predictor.rules.label_sets if predictor.rules is not None else None
    if fitted is None:
        return None
    least = least_probabilities(fitted, predictor.labels, COVERAGE)
    names = dict(zip(predictor.labels, predictor.space.descriptions, strict=True))
    found = LabelSet((), COVERAGE, unpromised(fitted, predictor.labels, COVERAGE), names)
    return {"least": [value if math.isfinite(value) else None for value in least], "promise": words.set_promise(found)}


def gate(predictor: Predictor) -> dict[str, Any] | None:
    """Say how the input gate judges a picture: the limits of the verdicts, and of each member (null: it has no gate) a
    linear function of what it ``reads``, the logits or the pooled features (the means, then the deviations).

    None where none was fitted, or where one reads more of a network than `inference.pixel_graph` gives: tokens of no place.
    """
    gated = [member for member in predictor.members if member.gate is not None]
    if not gated or not all(_reads_what_is_given(member) for member in gated):
        return None
    refuse, accept = limits_of(predictor.gates)
    return {
        "refuse_below": refuse,
        "accept_from": accept,
        "members": [member.gate and _linear(member.gate.weights) for member in predictor.members],
    }


def abstention(predictor: Predictor, error: float | None) -> dict[str, Any] | None:
    """Say above which doubt, and by which weights of its signals, the model keeps silent so that its answers have at most this
    ``error``, and how it says so. None where that was not fitted, or goes by a gate that the page does not have.
    """
    fitted = predictor.rules.abstention if predictor.rules is not None else None
    stated = fitted_error(error, fitted)
    if fitted is None or stated is None or (fitted.weights.get("scope") and predictor.gates and gate(predictor) is None):
        return None
    says = [words.MODEL_ABSTAINS, words.abstention(stated)]
    return {"weights": dict(fitted.weights), "limit": limit_for(stated, fitted), "says": says}


def _reads_what_is_given(member: Member) -> bool:
    return member.gate is not None and (not member.gate.reads_features or isinstance(cut(member.classifier), EndCut))


def _linear(weights: GateWeights) -> dict[str, Any]:
    return {"reads": weights.reads, "weights": [float(f"{value:.7g}") for value in weights.outputs], "bias": weights.bias}


def _labels(space: LabelSpace) -> list[dict[str, str]]:
    return [{"code": code, "name": name} for code, name in zip(space.labels, space.descriptions, strict=True)]


def _map(mapping: LabelMap) -> dict[str, Any]:
    """Say which label of ``count`` others each label becomes; -1 is none, whose probability is shared among all."""
    return {"indices": list(mapping.indices), "count": len(mapping.target)}


def _malignancy(space: LabelSpace) -> dict[str, Any] | None:
    mapping = space.malignancy_map
    return None if mapping is None else {**_map(mapping), "malignant": mapping.target.index("malignant")}


def _targets(space: LabelSpace) -> list[dict[str, Any]]:
    """List what a map can be about: each label, and malignancy where the labels say anything about it."""
    targets = [
        {"code": code, "name": name, "labels": [i]}
        for i, (code, name) in enumerate(zip(space.labels, space.descriptions, strict=True))
    ]
    try:
        code, selected = target_labels("malignant", space)
    except TaxonomyError:
        return targets
    meant = [int(i) for i in selected.nonzero()[0]]
    return targets if code in space.labels else [*targets, {"code": code, "name": code.capitalize(), "labels": meant}]


def _quality() -> dict[str, Any]:
    """Return the limits of `data.quality`, and what to say of a picture that is beyond them."""
    limits = ("tiny_side", "blurred_below", "noisy_above", "dark_below", "bright_above", "low_contrast_below", "skin_below")
    return {
        **{name: getattr(quality, name.upper()) for name in limits},
        "thumbnail": quality.THUMBNAIL,
        "flags": {flag: " ".join(words.warning(flag)) for flag in quality.FLAGS},
    }


def _words() -> dict[str, Any]:
    return {
        "disclaimer": words.NOTICE,
        "abstains": words.ABSTAINS,
        "no_points": words.NO_POINTS,
        "no_heat": words.NO_HEAT,
        "heat": f"{words.HEAT_MEANS} {words.HEAT_DOES_NOT_MEAN}",
        "single": words.SINGLE,
        "out_of_scope": [words.OUT_OF_SCOPE, words.REFUSED_BECAUSE],
        "unsure": [words.UNSURE, words.UNSURE_BECAUSE],
        "held_back": words.HELD_BACK,
        "disagreement": [[limit if math.isfinite(limit) else None, text] for limit, text in words.DISAGREEMENT],
    }
