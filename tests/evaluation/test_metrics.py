"""The measures against scikit-learn, torchmetrics and hand-made cases, on ordinary and on degenerate predictions."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_stat_scores

from lesion_hub.errors import LesionHubError
from lesion_hub.evaluation import metrics
from lesion_hub.evaluation.intervals import bootstrap
from lesion_hub.evaluation.predictions import check_predictions
from lesion_hub.taxonomy import LabelSpace, label_space, space_from_names

HAM7 = label_space("ham7")
SPACES = ["ham7", "isic8", "isic9", "isic2017", "binary", "binary_ak_benign", "clinical6"]


def random_predictions(
    seed: int, examples: int, space: LabelSpace, ties: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    labels = random.integers(len(space), size=examples)
    logits = random.normal(size=(examples, len(space)))
    logits[np.arange(examples), labels] += 1.0
    if ties:
        logits = np.round(logits)
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", SPACES)
def test_overall_measures_are_those_of_scikit_learn(name: str, ties: bool) -> None:
    space = label_space(name)
    probabilities, labels = random_predictions(1, 300, space, ties)
    predicted = probabilities.argmax(axis=1)
    result = metrics.compute(probabilities, labels, space)
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, predicted),
        "macro_f1": sklearn_metrics.f1_score(labels, predicted, average="macro"),
        "weighted_f1": sklearn_metrics.f1_score(labels, predicted, average="weighted"),
        "macro_precision": sklearn_metrics.precision_score(labels, predicted, average="macro"),
        "macro_recall": sklearn_metrics.recall_score(labels, predicted, average="macro"),
        "cohen_kappa": sklearn_metrics.cohen_kappa_score(labels, predicted),
        "mcc": sklearn_metrics.matthews_corrcoef(labels, predicted),
        "nll": sklearn_metrics.log_loss(labels, probabilities, labels=range(len(space))),
        "brier": float(((probabilities - np.eye(len(space))[labels]) ** 2).sum(axis=1).mean()),
    }
    assert {key: result[key] for key in expected} == pytest.approx(expected, abs=1e-12)
    assert result["confusion_matrix"] == sklearn_metrics.confusion_matrix(labels, predicted).tolist()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("name", ["ham7", "binary", "isic9"])
def test_per_class_measures_are_those_of_scikit_learn_and_torchmetrics(name: str, ties: bool) -> None:
    space = label_space(name)
    probabilities, labels = random_predictions(2, 300, space, ties)
    result = metrics.compute(probabilities, labels, space)
    predicted = probabilities.argmax(axis=1)
    counts = multiclass_stat_scores(
        torch.tensor(predicted), torch.tensor(labels), num_classes=len(space), average="none"
    ).numpy()
    aurocs = []
    for i, label in enumerate(space.labels):
        tp, fp, tn, fn, support = (int(value) for value in counts[i])
        auroc = sklearn_metrics.roc_auc_score(labels == i, probabilities[:, i])
        aurocs.append(auroc)
        assert result["per_class"][label] == pytest.approx(
            {
                "support": support,
                "sensitivity": tp / (tp + fn),
                "specificity": tn / (tn + fp),
                "ppv": tp / (tp + fp),
                "npv": tn / (tn + fn),
                "f1": 2 * tp / (2 * tp + fp + fn),
                "auroc": auroc,
                "average_precision": sklearn_metrics.average_precision_score(labels == i, probabilities[:, i]),
            },
            abs=1e-12,
        )
    assert result["macro_auroc"] == pytest.approx(np.mean(aurocs), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_calibration_error_is_that_of_torchmetrics(ties: bool) -> None:
    probabilities, labels = random_predictions(3, 500, HAM7, ties)
    expected = multiclass_calibration_error(
        torch.tensor(probabilities), torch.tensor(labels), num_classes=7, n_bins=15, norm="l1"
    )
    assert metrics.compute(probabilities, labels, HAM7)["ece"] == pytest.approx(float(expected), abs=1e-6)


def test_classwise_calibration_error_is_the_mean_over_classes_of_the_binned_gap() -> None:
    probabilities, labels = random_predictions(4, 200, HAM7)
    edges = np.linspace(0, 1, 16)
    gaps = []
    for i in range(7):
        chance = probabilities[:, i]
        for low, high in pairwise(edges):
            inside = (chance >= low) & ((chance < high) | (high == 1.0))
            if inside.any():
                gaps.append(inside.mean() * abs(chance[inside].mean() - (labels[inside] == i).mean()))
    assert metrics.compute(probabilities, labels, HAM7)["classwise_ece"] == pytest.approx(sum(gaps) / 7, abs=1e-12)


def isic2024_partial_auroc(truth: NDArray[np.bool_], scores: NDArray[np.float64], min_tpr: float = 0.8) -> float:
    """The challenge's own formula: scikit-learn's partial area of the mirrored problem, unscaled."""
    max_fpr = 1 - min_tpr
    scaled = sklearn_metrics.roc_auc_score(~truth, -scores, max_fpr=max_fpr)
    return 0.5 * max_fpr**2 + (max_fpr - 0.5 * max_fpr**2) / (1.0 - 0.5) * (scaled - 0.5)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("seed", "name"), [(5, "ham7"), (6, "isic9"), (7, "binary"), (8, "clinical6"), (9, "isic2017")])
def test_malignancy_measures_are_those_of_the_roc_curve(seed: int, name: str, ties: bool) -> None:
    space = label_space(name)
    probabilities, labels = random_predictions(seed, 400, space, ties)
    malignant = np.array([row.code in ("mel", "bcc", "akiec", "ak", "scc", "malignant") for row in space.rows])
    known = np.array([row.code != "unk" for row in space.rows])
    kept = known[labels]
    scores = probabilities[kept][:, malignant].sum(axis=1) / probabilities[kept][:, known].sum(axis=1)
    truth = malignant[labels[kept]]
    if ties:
        scores = check_predictions(probabilities, labels, space).malignancy().scores  # sums in one order: equal stays equal
    fpr, tpr, _ = sklearn_metrics.roc_curve(truth, scores, drop_intermediate=False)
    expected = {
        "label_space": "binary",
        "malignant": int(truth.sum()),
        "benign": int((~truth).sum()),
        "auroc": sklearn_metrics.roc_auc_score(truth, scores),
        "sensitivity_at_90_specificity": tpr[1 - fpr >= 0.90].max(),
        "sensitivity_at_95_specificity": tpr[1 - fpr >= 0.95].max(),
        "specificity_at_95_sensitivity": 1 - fpr[tpr >= 0.95].min(),
        "pauc_80": isic2024_partial_auroc(truth, scores),
    }
    assert metrics.compute(probabilities, labels, space)["malignancy"] == pytest.approx(expected, abs=1e-12)


def test_a_target_that_is_met_exactly_counts_as_met() -> None:
    """19 of 20 is 95 %: a threshold that clears just that many must not be lost to rounding."""
    scores = np.r_[np.linspace(0.01, 0.19, 19), 0.9, np.linspace(0.2, 0.8, 20)]
    labels = np.r_[np.zeros(20, dtype=int), np.ones(20, dtype=int)]
    result = metrics.compute(np.c_[1 - scores, scores], labels, "binary")
    assert result["malignancy"]["sensitivity_at_95_specificity"] == 1.0
    mirrored = metrics.compute(np.c_[scores, 1 - scores], 1 - labels, "binary")
    assert mirrored["malignancy"]["specificity_at_95_sensitivity"] == 1.0


def test_constant_scores_are_at_chance() -> None:
    labels = np.arange(100) % 2
    result = metrics.compute(np.full((100, 2), 0.5), labels, "binary")["malignancy"]
    assert (result["auroc"], result["pauc_80"]) == pytest.approx((0.5, 0.02))
    assert result["sensitivity_at_90_specificity"] == 0 and result["specificity_at_95_sensitivity"] == 0


@pytest.mark.parametrize("name", SPACES)
def test_a_perfect_model_is_perfect(name: str) -> None:
    space = label_space(name)
    labels = np.arange(6 * len(space)) % len(space)
    result = metrics.compute(np.eye(len(space))[labels], labels, space)
    ones = (*metrics.OVERALL, "macro_auroc", "macro_average_precision")
    assert [result[name] for name in ones] == [1.0] * len(ones)
    assert [result[name] for name in (*metrics.BINNED, *metrics.MEANS)] == pytest.approx([0.0] * 4, abs=1e-15)
    assert result["malignancy"]["pauc_80"] == pytest.approx(0.2)
    assert result["undefined"] == {}


def test_a_class_that_the_test_lacks_is_undefined_with_a_reason_and_left_out_of_averages() -> None:
    probabilities, labels = random_predictions(10, 200, HAM7)
    kept = labels != HAM7.index("df")
    probabilities, labels = probabilities[kept], labels[kept]
    result = metrics.compute(probabilities, labels, HAM7)
    predicted = probabilities.argmax(axis=1)
    assert HAM7.index("df") in predicted
    assert result["per_class"]["df"]["auroc"] is None and result["per_class"]["df"]["support"] == 0
    assert result["undefined"]["per_class.df.auroc"] == "'df' has no example"
    recalls = [(predicted[labels == i] == i).mean() for i in np.unique(labels)]
    assert result["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    for name, score in (("macro_f1", sklearn_metrics.f1_score), ("macro_precision", sklearn_metrics.precision_score)):
        assert result[name] == pytest.approx(score(labels, predicted, average="macro", zero_division=0))
    present = np.unique(labels)
    expected = np.mean([sklearn_metrics.roc_auc_score(labels == i, probabilities[:, i]) for i in present])
    assert result["macro_auroc"] == pytest.approx(expected)


def test_one_class_alone_leaves_ranking_undefined_and_the_rest_finite() -> None:
    probabilities, _ = random_predictions(11, 50, HAM7)
    result = metrics.compute(probabilities, np.zeros(50, dtype=int), HAM7)
    assert result["macro_auroc"] is None and result["malignancy"]["auroc"] is None
    assert result["per_class"]["mel"]["auroc"] is None and result["per_class"]["mel"]["specificity"] is None
    assert result["per_class"]["mel"]["average_precision"] == 1.0
    assert result["undefined"]["per_class.mel.auroc"] == "'mel' is the label of every example"
    assert result["undefined"]["malignancy.auroc"] == "the examples are not both malignant and benign"
    assert result["balanced_accuracy"] == result["accuracy"]


def test_a_single_example_can_be_scored() -> None:
    result = metrics.compute([[0.7, 0.3]], [0], "binary")
    assert result["accuracy"] == 1.0 and result["mcc"] is None and result["cohen_kappa"] is None
    assert result["ece"] == pytest.approx(0.3) and result["nll"] == pytest.approx(-math.log(0.7))


def test_every_none_has_a_reason_and_every_result_is_json() -> None:
    for seed in range(20):
        probabilities, labels = random_predictions(seed, 1 + seed % 5, HAM7)
        result = metrics.compute(probabilities, labels, HAM7)
        json.dumps(result, allow_nan=False)
        flat = metrics.flatten(result)
        assert {name for name, value in flat.items() if value is None} == set(result["undefined"])
        assert tuple(flat) == metrics.names(HAM7)


def test_a_row_of_a_table_is_all_that_a_measure_needs() -> None:
    per_class = [f"per_class.{label}.{name}" for label in HAM7.labels for name in (*metrics.PER_CLASS, *metrics.RANKING)]
    overall = (*metrics.OVERALL, *metrics.MACRO_RANKING, *metrics.BINNED, *metrics.MEANS)
    expected = {*overall, *per_class, *(f"malignancy.{name}" for name in metrics.MALIGNANCY)}
    probabilities, labels = random_predictions(15, 60, HAM7)
    assert set(metrics.names(HAM7)) == set(metrics.flatten(metrics.compute(probabilities, labels, HAM7))) == expected
    assert set(bootstrap(probabilities, labels, range(60), HAM7, resamples=5)) == expected


def test_a_space_without_malignancy_has_none() -> None:
    space = space_from_names(["tinea", "vitiligo", "v2.1", "v2"])
    probabilities, labels = random_predictions(12, 40, space)
    result = metrics.compute(probabilities, labels, space)
    assert result["malignancy"] is None
    assert set(result["per_class"]["v2"]) == set(result["per_class"]["v2.1"])
    assert metrics.compute(probabilities[:1], labels[:1], space)["undefined"]


@pytest.mark.parametrize("name", ["ham7", "isic9"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("examples", [120, 5000])
def test_whole_weights_are_repetitions(name: str, ties: bool, examples: int) -> None:
    space = label_space(name)
    probabilities, labels = random_predictions(13, examples, space, ties)
    weights = np.random.default_rng(0).integers(0, 4, size=examples)
    weighted = metrics.compute(probabilities, labels, space, weights=weights)
    repeated = metrics.compute(np.repeat(probabilities, weights, axis=0), np.repeat(labels, weights), space)
    assert metrics.flatten(weighted) == pytest.approx(metrics.flatten(repeated), abs=1e-12)
    assert weighted["confusion_matrix"] == repeated["confusion_matrix"]


def test_weighted_ranking_is_that_of_scikit_learn() -> None:
    probabilities, labels = random_predictions(14, 200, HAM7, ties=True)
    weights = np.random.default_rng(1).random(200)
    result = metrics.compute(probabilities, labels, HAM7, weights=weights)
    for i, label in enumerate(HAM7.labels):
        truth, score = labels == i, probabilities[:, i]
        auroc = sklearn_metrics.roc_auc_score(truth, score, sample_weight=weights)
        precision = sklearn_metrics.average_precision_score(truth, score, sample_weight=weights)
        assert result["per_class"][label]["auroc"] == pytest.approx(auroc, abs=1e-12)
        assert result["per_class"][label]["average_precision"] == pytest.approx(precision, abs=1e-12)


probability_rows = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.lists(st.integers(0, 4), min_size=7, max_size=7).filter(any), min_size=n, max_size=n),
        st.lists(st.integers(0, 6), min_size=n, max_size=n),
        st.permutations(range(n)),
    )
)


@settings(max_examples=60, deadline=None)
@given(probability_rows)
def test_order_of_examples_does_not_matter_and_values_stay_in_range(case: tuple[list, list, list]) -> None:
    rows, labels, order = case
    probabilities = np.array(rows, dtype=float)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    truth = np.array(labels)
    flat = metrics.flatten(metrics.compute(probabilities, truth, HAM7))
    shuffled = metrics.flatten(metrics.compute(probabilities[order], truth[order], HAM7))
    assert shuffled == pytest.approx(flat, abs=1e-12)
    ceilings = {"nll": 37.0, "brier": 2.0, "malignancy.pauc_80": 0.2}
    for name, value in flat.items():
        if value is not None:
            floor = -1.0 if name in ("mcc", "cohen_kappa") else 0.0
            assert floor - 1e-12 <= value <= ceilings.get(name, 1.0) + 1e-12, name


GOOD = [[0.5, 0.5], [0.2, 0.8]]


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.5, 0.5], [np.nan, 1.0]], [0, 1], "row 1 holds NaN"),
        ([[0.5, 0.5], [np.inf, 0.0]], [0, 1], "row 1 holds NaN or infinity"),
        ([[0.5, 0.5], [-np.inf, 1.0]], [0, 1], "outside 0..1"),
        ([[0.5, 0.5], [0.6, 0.6]], [0, 1], "row 1 sums to 1.2"),
        ([[2.0, -1.0], [0.5, 0.5]], [0, 1], "row 0 holds 2 for 'benign'.*not logits"),
        (GOOD, [0, 2], "label 2 in row 1"),
        (GOOD, [-1, 0], "label -1 in row 0"),
        (GOOD, [0], "labels have shape"),
        (GOOD, [0.0, 1.0], "not integers"),
        (GOOD, ["benign", "malignant"], "not integers"),
        ([[1.0], [1.0]], [0, 0], "one column per label"),
        (np.zeros((0, 2)), [], "hold no row"),
        ([[0.5, "x"]], [0], "not a table of numbers"),
    ],
)
def test_what_cannot_be_scored_is_one_line(probabilities: object, labels: object, message: str) -> None:
    with pytest.raises(LesionHubError, match=message) as caught:
        metrics.compute(probabilities, labels, "binary")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("weights", [[1.0], [-1.0, 1.0], [np.nan, 1.0], [0.0, 0.0]])
def test_weights_that_make_no_sense_are_refused(weights: list[float]) -> None:
    with pytest.raises(LesionHubError, match="weights must be 2"):
        metrics.compute(GOOD, [0, 1], "binary", weights=weights)


def test_rounding_of_half_precision_is_tolerated() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(7), size=50).astype(np.float16)
    assert metrics.compute(probabilities, np.arange(50) % 7, HAM7)["examples"] == 50
