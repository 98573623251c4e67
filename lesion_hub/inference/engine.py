"""Scoring a chunk of opened images with every member, and explaining the answer from the same forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesion_hub.inference.attribution.cut import Cut
from lesion_hub.inference.attribution.maps import Heat, averaged, on_image, scaled
from lesion_hub.inference.attribution.methods import Evidence, Method, method
from lesion_hub.inference.attribution.targets import Selection, for_member, select
from lesion_hub.inference.combine import Combination
from lesion_hub.inference.inputs import OpenedImage
from lesion_hub.inference.members import Member
from lesion_hub.inference.options import PredictOptions
from lesion_hub.inference.results import Explanation
from lesion_hub.inference.views import View, views

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """A chunk's (N, C) combined probabilities, each member's (N, C_m), and an explanation each where asked for."""

    combined: Array
    by_member: list[Array]
    explanations: list[Explanation] | None = None


@dataclass(frozen=True)
class _Look:
    """One member's forward pass over one view, kept until it is known which label to explain."""

    view: View
    cut: Cut
    batch: Tensor
    state: Tensor


def answer(
    members: Sequence[Member],
    combination: Combination,
    opened: Sequence[OpenedImage],
    options: PredictOptions,
    metadata: Tensor | None = None,
    *,
    one_case: bool = False,
) -> Answers:
    """Score N images; with ``one_case`` all explanations are about the label that is the most probable for all together."""
    if options.explain is None:
        by_member = [_scores(member, opened, options, metadata) for member in members]
        return Answers(combination(by_member), by_member)
    chosen = method(options.explain)
    scored = [_looks(member, chosen, opened, options, metadata) for member in members]
    by_member = [probabilities for probabilities, _ in scored]
    combined = combination(by_member)
    labels, selected = _targets(combined, combination, options.target, one_case)
    maps = [
        _maps(member, chosen, looks, opened, for_member(selected, mapping), metadata)
        for member, (_, looks), mapping in zip(members, scored, combination.maps, strict=True)
    ]
    explanations = [_explanation(i, label, chosen.name, members, combination, maps, opened) for i, label in enumerate(labels)]
    return Answers(combined, by_member, explanations)


def _batch(member: Member, opened: Sequence[OpenedImage]) -> Tensor:
    return member.batch([image.crops[member.framing] for image in opened])


def _views(member: Member, options: PredictOptions) -> tuple[View, ...]:
    return views(options.tta, member.framing.size)


@torch.inference_mode()
def _scores(member: Member, opened: Sequence[OpenedImage], options: PredictOptions, metadata: Tensor | None) -> Array:
    batch = _batch(member, opened)
    return _mean_probabilities([member.score(view.apply(batch), metadata) for view in _views(member, options)])


@torch.no_grad()
def _looks(
    member: Member, chosen: Method, opened: Sequence[OpenedImage], options: PredictOptions, metadata: Tensor | None
) -> tuple[Array, list[_Look]]:
    """The member's probabilities and the passes they come from. Not inference mode: its tensors could not be differentiated."""
    batch = _batch(member, opened)
    known = None if metadata is None else metadata.to(batch)
    looks, logits = [], []
    for view in _views(member, options):
        parts, seen = chosen.cut(member.classifier), view.apply(batch)
        state = parts.stem(seen)
        logits.append(parts(state, known))
        looks.append(_Look(view, parts, seen, state))
    return _mean_probabilities(logits), looks


def _mean_probabilities(logits: Sequence[Tensor]) -> Array:
    rows = [torch.softmax(scores.float(), dim=1).double().cpu().numpy() for scores in logits]
    return np.asarray(rows[0] if len(rows) == 1 else np.mean(rows, axis=0))


def _targets(combined: Array, combination: Combination, target: str | None, one_case: bool) -> tuple[list[str], Selection]:
    """The label that each image's map is about, by name, and as (N, C) of the ensemble's labels."""
    space, count = combination.space, len(combined)
    if target is not None:
        name, chosen = select(target, space)
        return [name] * count, np.tile(chosen, (count, 1))
    best = np.full(count, combined.mean(axis=0).argmax()) if one_case else combined.argmax(axis=1)
    return [space.labels[i] for i in best], np.eye(len(space), dtype=bool)[best]


def _maps(
    member: Member,
    chosen: Method,
    looks: Sequence[_Look],
    opened: Sequence[OpenedImage],
    selected: Selection,
    metadata: Tensor | None,
) -> list[Heat]:
    """One member's maps in [0, 1], each on its image; zero where none of the member's labels is meant."""
    meant = np.asarray(selected.any(axis=1))
    rows = torch.from_numpy(selected | ~meant[:, None]).to(looks[0].batch.device)
    known = None if metadata is None else metadata.to(looks[0].batch)
    total = torch.stack(
        [look.view.undo(chosen.attribute(Evidence(look.cut, look.batch, look.state, rows, known))) for look in looks]
    ).mean(dim=0)
    grids = total.cpu().numpy() * meant[:, None, None]
    return [
        scaled(on_image(grid, member.framing.place(image.size), image.size)) for grid, image in zip(grids, opened, strict=True)
    ]


def _explanation(
    i: int,
    label: str,
    name: str,
    members: Sequence[Member],
    combination: Combination,
    maps: Sequence[Sequence[Heat]],
    opened: Sequence[OpenedImage],
) -> Explanation:
    image = opened[i].image
    assert image is not None, "images to be explained are opened with keep=True"
    own = {member.name: rows[i] for member, rows in zip(members, maps, strict=True)}
    heat = averaged([rows[i] for rows in maps], combination.weights)
    return Explanation(name, label, heat, own, image)
