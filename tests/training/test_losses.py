from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from lesion_hub.errors import ConfigError
from lesion_hub.training.losses import LOSSES, make_loss, weigh_classes

COUNTS = [60, 25, 10, 5]


@pytest.fixture
def batch():
    stream = torch.Generator().manual_seed(0)
    return 3 * torch.randn(16, 4, generator=stream), torch.randint(0, 4, (16,), generator=stream)


def _make(name, **options):
    return make_loss(name, class_counts=COUNTS, **options)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(batch, smoothing):
    logits, targets = batch
    expected = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    torch.testing.assert_close(_make("cross_entropy", label_smoothing=smoothing)(logits, targets), expected)


def test_cross_entropy_of_soft_targets_is_torchs(batch):
    logits, _ = batch
    soft = torch.rand(16, 4).softmax(dim=1)
    torch.testing.assert_close(_make("cross_entropy")(logits, soft), F.cross_entropy(logits, soft))


def test_inverse_weights_are_scikit_learns_balanced_ones():
    labels = np.repeat(np.arange(4), COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(weigh_classes("inverse", COUNTS), expected, rtol=1e-6)


def test_a_training_image_weighs_one_on_average_under_inverse_weights():
    weights = weigh_classes("inverse", [*COUNTS, 0])
    assert float((weights * torch.tensor([*COUNTS, 0])).sum()) / sum(COUNTS) == pytest.approx(1)
    assert weights[-1] == 0


def test_weighted_cross_entropy_is_a_plain_mean_of_weighted_samples(batch):
    logits, targets = batch
    weights = torch.tensor([sum(COUNTS) / (4 * n) for n in COUNTS])
    expected = (weights[targets] * F.cross_entropy(logits, targets, reduction="none")).mean()
    torch.testing.assert_close(_make("weighted_cross_entropy")(logits, targets), expected)


def test_means_of_equal_parts_average_to_the_mean_of_the_whole(batch):
    logits, targets = batch
    loss = _make("weighted_cross_entropy")
    parts = torch.stack([loss(logits[i::2], targets[i::2]) for i in range(2)])
    torch.testing.assert_close(parts.mean(), loss(logits, targets))


def test_focal_is_its_closed_form(batch):
    logits, targets = batch
    p = logits.softmax(dim=1)[torch.arange(16), targets]
    torch.testing.assert_close(_make("focal", gamma=1.5)(logits, targets), (-((1 - p) ** 1.5) * p.log()).mean())


def test_focal_without_focus_is_cross_entropy(batch):
    torch.testing.assert_close(_make("focal", gamma=0.0)(*batch), F.cross_entropy(*batch))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_of_a_certain_answer_has_a_finite_gradient(gamma):
    logits = torch.tensor([[200.0, 0, 0, 0], [0.0, 200, 0, 0]], requires_grad=True)
    _make("focal", gamma=gamma)(logits, torch.tensor([0, 0])).backward()
    assert logits.grad.isfinite().all()


def test_class_balanced_focal_weighs_by_the_effective_number(batch):
    logits, targets = batch
    beta = 0.99
    effective = [(1 - beta**n) / (1 - beta) for n in COUNTS]
    weights = torch.tensor([1 / e for e in effective])
    weights *= 4 / weights.sum()
    p = logits.softmax(dim=1)[torch.arange(16), targets]
    expected = (-weights[targets] * (1 - p) ** 2 * p.log()).mean()
    torch.testing.assert_close(_make("class_balanced_focal", beta=beta)(logits, targets), expected)


def test_effective_weights_go_from_equal_to_inverse():
    torch.testing.assert_close(weigh_classes("effective", COUNTS, beta=0.0), torch.ones(4))
    nearly_inverse = weigh_classes("effective", COUNTS, beta=1 - 1e-9)
    torch.testing.assert_close(nearly_inverse[3] / nearly_inverse[0], torch.tensor(12.0), rtol=1e-4, atol=0)


def test_logit_adjustment_adds_the_log_prior(batch):
    logits, targets = batch
    prior = torch.tensor(COUNTS) / sum(COUNTS)
    expected = F.cross_entropy(logits + 0.7 * prior.log(), targets)
    torch.testing.assert_close(_make("logit_adjusted", tau=0.7)(logits, targets), expected)


def test_bce_acts_on_the_difference_of_the_two_logits():
    logits, targets = torch.randn(8, 2), torch.tensor([0, 1] * 4)
    expected = F.binary_cross_entropy_with_logits(logits[:, 1] - logits[:, 0], targets.float())
    torch.testing.assert_close(make_loss("bce", class_counts=[3, 1])(logits, targets), expected)


def test_bce_takes_soft_and_smoothed_targets():
    logits, positive = torch.randn(8, 2), torch.rand(8)
    expected = F.binary_cross_entropy_with_logits(logits[:, 1] - logits[:, 0], 0.8 * positive + 0.1)
    soft = torch.stack([1 - positive, positive], dim=1)
    loss = make_loss("bce", class_counts=[3, 1], label_smoothing=0.2)
    torch.testing.assert_close(loss(logits, soft), expected)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_hot_targets_equal_hard_ones(name, smoothing):
    logits, targets = torch.randn(8, 2), torch.tensor([0, 1] * 4)
    loss = make_loss(name, class_counts=[30, 10], label_smoothing=smoothing)
    assert torch.equal(loss(logits, targets), loss(logits, F.one_hot(targets, 2).float()))


@pytest.mark.parametrize("name", LOSSES)
def test_unreduced_values_average_to_the_loss_in_float32(name):
    logits, targets = torch.randn(8, 2, dtype=torch.bfloat16), torch.tensor([0, 1] * 4)
    values = make_loss(name, class_counts=[30, 10], reduction="none")(logits, targets)
    assert values.shape == (8,) and values.dtype == torch.float32
    torch.testing.assert_close(make_loss(name, class_counts=[30, 10])(logits, targets), values.mean())


def test_class_weights_combine_with_any_loss(batch):
    logits, targets = batch
    weights = weigh_classes("inverse", COUNTS)
    plain = _make("focal", reduction="none")(logits, targets)
    torch.testing.assert_close(_make("focal", class_weights="inverse")(logits, targets), (weights[targets] * plain).mean())


def test_a_loss_has_nothing_to_save():
    assert not _make("logit_adjusted", class_weights="inverse").state_dict()


def test_a_class_without_images_does_no_harm(batch):
    for name in set(LOSSES) - {"bce"}:
        loss = make_loss(name, class_counts=[60, 25, 15, 0], label_smoothing=0.1)
        assert loss(*batch).isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "focall"}, "did you mean 'focal'"),
        ({"name": "bce"}, "for two classes, not 4"),
        ({"name": "focal", "class_weights": "invers"}, "did you mean 'inverse'"),
        ({"name": "focal", "reduction": "sum"}, "reduction 'sum'"),
    ],
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(ConfigError, match=message):
        make_loss(class_counts=COUNTS, **options)


OWN = "tests.training.own_components"


def test_a_loss_of_ones_own_is_made_as_ours_are(batch):
    logits, targets = batch
    plain = F.cross_entropy(logits, targets, reduction="none")
    miss = 1 - logits.softmax(dim=1)[torch.arange(16), targets]
    values = _make(f"{OWN}:PolyLoss", epsilon=2.0, reduction="none")(logits, targets)
    torch.testing.assert_close(values, plain + 2 * miss)
    weights = weigh_classes("effective", COUNTS, beta=0.9)
    weighted = _make(f"{OWN}:PolyLoss", epsilon=0.0, class_weights="effective", beta=0.9)(logits, targets)
    torch.testing.assert_close(weighted, (weights[targets] * plain).mean())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{OWN}:Scalar", r"Scalar: gave values of shape \(\) for 2 images, not \(2,\); mind reduction"),
        (f"{OWN}:no_module", "no_module: gave a str; a loss is a torch.nn.Module"),
    ],
)
def test_a_loss_of_ones_own_that_is_none_is_one_line(name, message):
    with pytest.raises(ConfigError, match=message):
        _make(name, reduction="none")


def test_an_option_of_another_loss_is_one_line():
    with pytest.raises(ConfigError, match="loss focal: no option 'tau'"):
        _make("focal", tau=1.0)
