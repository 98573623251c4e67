"""Decisions: which label an answer names, by what is asked of it; and probabilities at another prevalence.

Probabilities are calibrated to the mix of the training data. Naming the most probable label is then right as often as can be.
Whoever wants every diagnosis found equally often, a sensitivity, or the least cost names another label, and each use has its
rule:

- ``most_probable``;
- ``balanced``: the probability over a power of the label's share, chosen on validation for balanced accuracy;
- an operating point (``sensitivity_95``): the most probable of the malignant labels where the malignant score reaches it, else
  of the others;
- a matrix of costs: the label of the least expected cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lesion_hub.config import AnswerRules, NonNegative, OperatingPoint, Options, Probability
from lesion_hub.errors import ConfigError
from lesion_hub.taxonomy import LabelSpace, nearest

Probabilities: TypeAlias = NDArray[np.float64]

MOST_PROBABLE = "most_probable"
BALANCED = "balanced"
COST = "cost"
_HOW_TO_FIT = "fit it on validation images with lesion-hub calibrate"
_SUM_TOLERANCE = 1e-3


class CostRule(Options):
    """What each mistake costs: ``cost[true][decided]``.

    As a mapping it names the costs that are not 1 for a wrong label and 0 for the right one; as rows it is a (C, C) matrix in
    the order of the labels.
    """

    cost: dict[str, dict[str, NonNegative]] | tuple[tuple[NonNegative, ...], ...]

    def matrix(self, space: LabelSpace) -> Probabilities:
        """Return the (C, C) costs, the true label first.

        >>> from lesion_hub.taxonomy import label_space
        >>> CostRule(cost={"malignant": {"benign": 10}}).matrix(label_space("binary")).tolist()
        [[0.0, 1.0], [10.0, 0.0]]
        """
        size = len(space)
        if isinstance(self.cost, dict):
            costs = 1.0 - np.eye(size)
            for true, row in zip(_places(self.cost, space), self.cost.values(), strict=True):
                costs[true, _places(row, space)] = list(row.values())
            return costs
        if len(self.cost) != size or any(len(row) != size for row in self.cost):
            raise ConfigError(f"cost is not a matrix of {size} rows and columns, one for each label: {', '.join(space.labels)}")
        return np.asarray(self.cost, dtype=np.float64)


Decide: TypeAlias = str | CostRule
Prior: TypeAlias = dict[str, Annotated[Probability, Field(strict=True)]]


def decision_name(decide: Decide) -> str:
    """Return what results call a decision: the rule's name, ``cost`` for a matrix."""
    return decide if isinstance(decide, str) else COST


def check_decision(
    decide: Decide, prior: Prior | None, space: LabelSpace, points: Mapping[str, OperatingPoint], rules: AnswerRules | None
) -> None:
    """Raise one line where a model with these operating points and rules cannot decide so, or re-weight to ``prior``."""
    if isinstance(decide, CostRule):
        decide.matrix(space)
    elif decide == BALANCED:
        if rules is None or rules.decision is None:
            raise ConfigError(f"decide {BALANCED!r}: not fitted for this model; {_HOW_TO_FIT}")
    elif decide != MOST_PROBABLE and decide not in points:
        raise ConfigError(f"unknown decision {decide!r}; {nearest(decide, [MOST_PROBABLE, BALANCED, *points])}")
    if prior is not None:
        prevalences(prior, space, rules)


def prevalences(prior: Prior, space: LabelSpace, rules: AnswerRules | None) -> Probabilities:
    """Return the (C,) prevalence of every label: those of ``prior``, and of the others in proportion to their shares."""
    if rules is None or rules.decision is None:
        raise ConfigError(f"prior: the mix that the probabilities are calibrated to is not recorded; {_HOW_TO_FIT}")
    wanted = np.full(len(space), np.nan)
    wanted[_places(prior, space)] = list(prior.values())
    named, rest = ~np.isnan(wanted), 1 - float(np.nansum(wanted))
    if rest < -_SUM_TOLERANCE or (named.all() and rest > _SUM_TOLERANCE):
        raise ConfigError(f"prior: the prevalences sum to {1 - rest:.6g}; they are shares of one whole")
    shares = np.array([rules.decision.shares[label] for label in space.labels])
    wanted[~named] = max(rest, 0.0) * shares[~named] / max(shares[~named].sum(), 1e-300)
    return wanted


def _places(names: Iterable[str], space: LabelSpace) -> list[int]:
    """Return the place of each label; one that is named twice, by its code and by a synonym, is one line."""
    places: dict[int, str] = {}
    for name in names:
        before = places.setdefault(space.index(name), name)
        if before != name:
            raise ConfigError(f"{before!r} and {name!r} name the same label of {space.name!r}; name it once")
    return list(places)


def at_prevalence(probabilities: Probabilities, prior: Prior, space: LabelSpace, rules: AnswerRules | None) -> Probabilities:
    """Re-weight (N, C) probabilities from the validation images' mix to another, by Bayes' rule.

    It takes for granted that lesions of a label look alike in both places, and only how common they are differs.
    """
    wanted = prevalences(prior, space, rules)
    assert rules is not None and rules.decision is not None
    shares = np.array([rules.decision.shares[label] for label in space.labels])
    weighted = probabilities * (wanted / np.maximum(shares, 1e-12))
    total = weighted.sum(axis=1, keepdims=True)
    return np.divide(weighted, total, out=np.tile(wanted, (len(weighted), 1)), where=total > 0)


def decided(
    probabilities: Probabilities,
    decide: Decide,
    space: LabelSpace,
    points: Mapping[str, OperatingPoint],
    rules: AnswerRules | None,
    prior: Prior | None = None,
) -> NDArray[np.int64]:
    """Return the (N,) labels that (N, C) probabilities, at the mix of the training data, are decided for.

    How common a label is, hence ``prior``, counts for the most probable label and for costs. It does not for the balanced
    decision and for operating points, which ask how often the lesions of a kind are found.

    >>> from lesion_hub.taxonomy import label_space
    >>> rule = CostRule(cost={"malignant": {"benign": 10}})
    >>> decided(np.array([[0.8, 0.2]]), rule, label_space("binary"), {}, None).tolist()
    [1]
    """
    check_decision(decide, prior, space, points, rules)
    weighted = probabilities if prior is None else at_prevalence(probabilities, prior, space, rules)
    if isinstance(decide, CostRule):
        return np.asarray((weighted @ decide.matrix(space)).argmin(axis=1))
    if decide == MOST_PROBABLE:
        return np.asarray(weighted.argmax(axis=1))
    if decide == BALANCED:
        assert rules is not None and rules.decision is not None
        shares = np.array([rules.decision.shares[label] for label in space.labels])
        return balanced_labels(probabilities, shares, rules.decision.power)
    score, malignant = malignant_scores(probabilities, space)
    suspicious = score >= points[decide].threshold
    allowed = np.where(suspicious[:, None], malignant, ~malignant)
    return np.asarray(np.where(allowed, probabilities, -1.0).argmax(axis=1))


def balanced_labels(probabilities: Probabilities, shares: Probabilities, power: float) -> NDArray[np.int64]:
    """Return the (N,) labels whose probability over the ``power`` of the (C,) shares is the highest.

    >>> balanced_labels(np.array([[0.7, 0.3]]), np.array([0.9, 0.1]), 1.0).tolist()
    [1]
    """
    return np.asarray((probabilities / np.maximum(shares, 1e-12) ** power).argmax(axis=1))


def malignant_scores(probabilities: Probabilities, space: LabelSpace) -> tuple[Probabilities, NDArray[np.bool_]]:
    """Return the (N,) scores that operating points are chosen on, and the (C,) labels that are malignant."""
    mapping = space.malignancy_map
    if mapping is None:
        raise ConfigError(f"the labels of {space.name!r} say nothing of malignancy, so no operating point decides for one")
    place = mapping.target.index("malignant")
    # A row of float32 probabilities may sum to a little more than 1.
    return np.minimum(mapping.probabilities(probabilities)[:, place], 1.0), np.asarray(mapping.indices) == place
