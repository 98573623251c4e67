"""What a model's rules make of its probabilities, for a batch: the prevalence shown, the label decided for, the doubt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lesion_hub.config import AnswerRules, OperatingPoint
from lesion_hub.errors import ConfigError
from lesion_hub.inference.abstention import doubt_of, limit_for, signals_of
from lesion_hub.inference.decisions import Decide, Prior, at_prevalence, check_decision, decided, malignant_scores
from lesion_hub.inference.label_sets import COVERAGE, coverage_index, labels_in_sets
from lesion_hub.taxonomy import LabelSpace

Values = NDArray[np.float64]


class RuleOptions(Protocol):
    """The options of a call that choose among the rules."""

    @property
    def coverage(self) -> float: ...
    @property
    def decide(self) -> Decide: ...
    @property
    def prior(self) -> Prior | None: ...
    @property
    def abstain(self) -> float | None: ...


class RuledAnswers(NamedTuple):
    """(N, C) probabilities and (N,) malignant scores at the prevalence asked for, (N,) labels, doubts and silences."""

    probabilities: Values
    malignancy: Values | None
    decided: NDArray[np.int64]
    doubt: Values | None
    abstains: NDArray[np.bool_] | None


def check_rules(
    options: RuleOptions, space: LabelSpace, points: Mapping[str, OperatingPoint], rules: AnswerRules | None
) -> None:
    """Raise one line where a call asks for a rule that the model does not have."""
    check_decision(options.decide, options.prior, space, points, rules)
    sets, abstention = (rules.label_sets, rules.abstention) if rules is not None else (None, None)
    if sets is not None:
        coverage_index(options.coverage, sets)
    elif options.coverage != COVERAGE:
        raise ConfigError("coverage: label sets are not fitted for this model; fit them with lesion-hub calibrate")
    if options.abstain is not None:
        if abstention is None:
            raise ConfigError("abstain: not fitted for this model; fit it on validation images with lesion-hub calibrate")
        limit_for(options.abstain, abstention)


def apply_rules(
    probabilities: Values,
    options: RuleOptions,
    space: LabelSpace,
    points: Mapping[str, OperatingPoint],
    rules: AnswerRules | None,
    *,
    disagreement: Values | None = None,
    scope: Values | None = None,
) -> RuledAnswers:
    """Apply the rules to (N, C) ``probabilities``, which are at the mix of the training data."""
    shown = probabilities if options.prior is None else at_prevalence(probabilities, options.prior, space, rules)
    labels = decided(probabilities, options.decide, space, points, rules, options.prior)
    scores = None if space.malignancy_map is None else malignant_scores(shown, space)[0]
    doubt = doubts(probabilities, space, rules, disagreement, scope)
    abstains = None
    if options.abstain is not None and doubt is not None and rules is not None and rules.abstention is not None:
        abstains = doubt > limit_for(options.abstain, rules.abstention)
    return RuledAnswers(shown, scores, labels, doubt, abstains)


def doubts(
    probabilities: Values,
    space: LabelSpace,
    rules: AnswerRules | None,
    disagreement: Values | None,
    scope: Values | None = None,
) -> Values | None:
    """Return the (N,) doubts of (N, C) probabilities; None for a model whose abstention is not fitted.

    ``scope`` (N,) are the gate's scores.
    """
    if rules is None or rules.abstention is None:
        return None
    sizes = None
    if rules.label_sets is not None and len(probabilities):
        sizes = labels_in_sets(probabilities, rules.label_sets, space.labels, COVERAGE).sum(axis=1)
    return doubt_of(signals_of(probabilities, sizes, disagreement, scope), rules.abstention.weights)
