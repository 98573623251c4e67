"""``model.json`` of the static page: what makes of the graphs' outputs what ``predict`` gives, and puts it in words.

A model's label sets and its gate belong in here once a config can hold them: `label_sets` and `gate` are the one place that
reads them, and the page shows a set and a verdict where they are not None.
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
from lesion_hub.inference import Predictor
from lesion_hub.inference.attribution import METHODS, target_labels
from lesion_hub.inference.members import SMALLEST_PROBABILITY
from lesion_hub.inference.results import palette
from lesion_hub.taxonomy import LabelMap, LabelSpace

FORMAT_VERSION = 1


def manifest(
    predictor: Predictor, title: str, graphs: Sequence[Mapping[str, Any]], runtime: Mapping[str, Any]
) -> dict[str, Any]:
    """Gather what ``model.json`` holds; ``graphs`` says of each member's file its name, sha256 and bytes."""
    space, how, limits = predictor.space, predictor.combination, AppOptions()
    return {
        "format_version": FORMAT_VERSION,
        "made_by": f"lesion-hub {__version__}",
        "name": predictor.name,
        "version": predictor.revision,
        "title": title,
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
    """Say which labels belong to an answer's set: those of probability ``threshold`` and more, for a ``coverage``.

    No config holds one yet.
    """
    return None


def gate(predictor: Predictor) -> dict[str, Any] | None:
    """Say what a model takes for a picture of a lesion: the ``threshold`` of the members' mean score.

    Of each of the ``members`` there are the ``mean``, ``deviation``, ``weights`` and ``bias`` of a linear score of its pooled
    features, as `inference.pixel_graph` orders them.

    No config holds one yet.
    """
    return None


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
        "disagreement": [[limit if math.isfinite(limit) else None, text] for limit, text in words.DISAGREEMENT],
    }
