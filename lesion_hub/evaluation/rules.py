"""The rules of a model, all together: fitted on validation where its temperature is, and measured on other images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion_hub.config import AnswerRules, OperatingPoint
from lesion_hub.evaluation.abstention import fit_abstention, judge_abstention
from lesion_hub.evaluation.assessment import trait_bins
from lesion_hub.evaluation.decisions import decisions_of, fit_balanced, judge_decisions
from lesion_hub.evaluation.intervals import RESAMPLES, bootstrap_means, measure_bins
from lesion_hub.evaluation.label_sets import fit_label_sets, judge_label_sets, sets_at
from lesion_hub.evaluation.scoring import Scored
from lesion_hub.inference.abstention import limit_for
from lesion_hub.inference.decisions import Decide, Prior
from lesion_hub.inference.label_sets import COVERAGE, labels_in_sets
from lesion_hub.inference.results import VERDICTS, Verdict
from lesion_hub.inference.rules import doubts
from lesion_hub.taxonomy import ABSTAIN, LabelSpace

BIN_TRAITS = ("sex", "age", "site", "skin_tone", "source")
RULE_RESULTS = ("decisions", "label_sets", "abstention")
"""What ``judge_rules`` measures of the rules themselves; the verdicts of the ``gate`` do not depend on them."""


def fit_rules(scored: Scored, chosen_on: str = "validation") -> AnswerRules:
    """Fit label sets, the balanced decision and abstention on validation images, scored in the model's own labels."""
    probabilities, labels, space = scored.probabilities, scored.labels, scored.space
    sets = fit_label_sets(probabilities, labels, scored.groups, space, chosen_on=chosen_on)
    sizes = labels_in_sets(probabilities, sets, space.labels, COVERAGE).sum(axis=1)
    return AnswerRules(
        label_sets=sets,
        decision=fit_balanced(probabilities, labels, space, chosen_on=chosen_on),
        abstention=fit_abstention(probabilities, labels, sizes, scored.disagreement, scope=scored.scope, chosen_on=chosen_on),
    )


@dataclass(frozen=True, eq=False)
class RuleAnswers:
    """What a model's rules make of N images: memberships (N, C) by coverage, (N,) labels by decision, (N,) doubts, silences."""

    sets: dict[float, NDArray[np.bool_]] = field(default_factory=dict)
    decisions: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    doubt: NDArray[np.float64] | None = None
    silent: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Sequence[tuple[NDArray[np.int64], RuleAnswers]]) -> RuleAnswers:
        """Join the answers of parts of the images, each with its (M,) rows; what only some parts know is left out."""
        order = np.argsort(np.concatenate([rows for rows, _ in parts]))
        answers = [one for _, one in parts]

        def whole(of: str) -> dict[Any, Any]:
            known = set.intersection(*(set(getattr(one, of)) for one in answers))
            first = [name for name in getattr(answers[0], of) if name in known]
            return {name: np.concatenate([getattr(one, of)[name] for one in answers])[order] for name in first}

        doubts_known = [one.doubt for one in answers if one.doubt is not None]
        doubt = np.concatenate(doubts_known)[order] if len(doubts_known) == len(answers) else None
        return cls(whole("sets"), whole("decisions"), doubt, whole("silent"))


def answers_by(
    probabilities: NDArray[np.float64],
    space: LabelSpace,
    points: Mapping[str, OperatingPoint],
    rules: AnswerRules | None,
    scored: Scored,
    *,
    decide: Decide | None = None,
    prior: Prior | None = None,
) -> RuleAnswers:
    """Apply a model's rules to the (N, C) ``probabilities`` in its own labels of the images of ``scored``.

    ``decide`` and ``prior`` add a decision.
    """
    sets = rules.label_sets if rules is not None else None
    doubt = doubts(probabilities, space, rules, scored.disagreement, scored.scope)
    silent = {}
    if doubt is not None and rules is not None and rules.abstention is not None:
        silent = {error: doubt > limit_for(float(error), rules.abstention) for error in rules.abstention.limits}
    return RuleAnswers(
        sets={} if sets is None else sets_at(probabilities, sets, space),
        decisions=decisions_of(probabilities, space, points, rules, also=decide, prior=prior),
        doubt=doubt,
        silent=silent,
    )


def measure_rules(
    scored: Scored, points: Mapping[str, OperatingPoint], rules: AnswerRules, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Apply rules to images that are scored in the model's own labels, and measure them as ``judge_rules`` does."""
    answers = answers_by(scored.probabilities, scored.space, points, rules, scored)
    return judge_rules(answers, scored, scored.space, rules, resamples=resamples, seed=seed)


def judge_rules(
    answers: RuleAnswers,
    scored: Scored,
    model: LabelSpace,
    rules: AnswerRules | None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the rules on the images of ``scored``.

    The result holds ``decisions``, the verdicts of the ``gate`` of a model that has one and, where they are fitted,
    ``label_sets`` and ``abstention``. ``answers`` are in the labels of ``model``. Where the truth is in coarser ones, decisions
    are coarsened too, and sets, which promise nothing for those, are left out.
    """
    space, labels, groups = scored.space, scored.labels, scored.groups
    sampling: dict[str, Any] = {"resamples": resamples, "seed": seed}
    bins = {}
    if {"sex", "age", "skin_tone"} <= set(scored.facts):
        bins = {trait: rows for trait, rows in trait_bins(scored.facts).items() if trait in BIN_TRAITS}
    by_rule = {name: _coarsened(chosen, scored, model) for name, chosen in answers.decisions.items()}
    found: dict[str, Any] = {"decisions": judge_decisions(by_rule, labels, groups, space, **sampling)}
    if "scope" in scored.facts:
        found["gate"] = judge_verdicts(list(scored.facts["scope"]), groups, bins=bins, **sampling)
    if rules is None:
        return found
    if rules.decision is not None:
        found["decisions"]["balanced"] |= {"power": rules.decision.power, "chosen_on": rules.decision.chosen_on}
    if rules.label_sets is not None and model == space:
        found["label_sets"] = judge_label_sets(answers.sets, labels, groups, space, rules.label_sets, bins=bins, **sampling)
    if rules.abstention is not None and answers.doubt is not None:
        predicted = scored.probabilities.argmax(axis=1)
        judged = judge_abstention(answers.doubt, answers.silent, predicted, labels, groups, space, bins=bins, **sampling)
        found["abstention"] = {"weights": dict(rules.abstention.weights), "chosen_on": rules.abstention.chosen_on, **judged}
    return found


def without_results(metrics: Mapping[str, Any], stale: Collection[str]) -> dict[str, Any]:
    """Drop the ``stale`` results from every part of a metrics.json, from sets measured elsewhere and their figures at home.

    >>> without_results({"test": {"intervals": {}, "gate": {}}, "gate": {"images": 30}}, ["gate"])
    {'test': {'intervals': {}}, 'gate': {'images': 30}}
    """
    measured = not metrics.keys().isdisjoint(("intervals", "decisions"))
    return {
        name: without_results(found, stale) if isinstance(found, dict) else found
        for name, found in metrics.items()
        if not (measured and name in stale)
    }


def judge_verdicts(
    verdicts: Sequence[Verdict],
    groups: Sequence[Any],
    *,
    bins: Mapping[str, Mapping[str, NDArray[np.int64]]] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the share of N images that the gate gave each verdict, in all and ``by_group``; ``bins`` are rows by trait.

    >>> found = judge_verdicts(["in scope", "in scope", "unsure", "in scope"], list("abcd"), resamples=20)
    >>> found["in_scope"]["value"], found["out_of_scope"]["value"]
    (0.75, 0.0)
    """
    given, every = np.asarray(verdicts), np.ones(len(verdicts), dtype=bool)
    shares = {name.replace(" ", "_"): (given == name, every) for name in VERDICTS}
    means = bootstrap_means(shares, groups, resamples, seed)
    by_group = measure_bins(shares, bins or {}, groups, resamples, seed)
    return {**{name: one.to_dict() for name, one in means.items()}, "by_group": by_group}


def _coarsened(chosen: NDArray[np.int64], scored: Scored, model: LabelSpace) -> NDArray[np.int64]:
    """Map (N,) labels of the model to those of the truth; where one has no place there, the most probable of them stands in."""
    mapped = model.map_to(scored.space).labels(chosen)
    return np.where(mapped == ABSTAIN, scored.probabilities.argmax(axis=1), mapped)
