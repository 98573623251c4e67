from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_hub.training.augmentation.mixing import MixingOptions, MixPlan, mix_batch, plan_mix
from lesion_hub.training.losses import make_loss

MIXUP, CUTMIX = MixingOptions(mixup=0.4), MixingOptions(cutmix=1.0)


def _batch(size=6, classes=3, side=16):
    stream = torch.Generator().manual_seed(1)
    return torch.rand(size, 3, side, side, generator=stream), torch.arange(size) % classes


def _constant(size=6, side=20):
    """Image i is i everywhere: what a pixel holds says whose it is."""
    return torch.arange(size).float()[:, None, None, None].expand(size, 3, side, side)


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(1, 9),
    step=st.integers(0, 1000),
    mixup=st.sampled_from([0.0, 0.2, 1.0]),
    cutmix=st.sampled_from([0.0, 1.0]),
)
def test_targets_are_distributions(size, step, mixup, cutmix):
    images, targets = _batch(size)
    plan = plan_mix(MixingOptions(mixup=mixup, cutmix=cutmix, probability=0.7), size, 0, 0, step)
    mixed, soft = mix_batch(images, targets, 3, plan)
    assert mixed.shape == images.shape and soft.dtype == torch.float32
    assert (soft >= 0).all()
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(size))


def test_mixup_mixes_images_as_it_mixes_targets():
    plan = plan_mix(MIXUP, 6, seed=0, epoch=0, step=0)
    images, soft = mix_batch(_constant(), torch.arange(6), 6, plan)
    torch.testing.assert_close(images[:, 0, 0, 0], soft @ torch.arange(6).float())
    torch.testing.assert_close(soft[range(6), range(6)], torch.from_numpy(np.where(plan.partner == np.arange(6), 1, plan.keep)))


def test_cutmix_targets_are_the_shares_of_pixels():
    plan = plan_mix(CUTMIX, 6, seed=0, epoch=0, step=0)
    images, soft = mix_batch(_constant(), torch.arange(6), 6, plan)
    for i in range(6):
        owners = torch.bincount(images[i, 0].long().flatten(), minlength=6) / 400
        torch.testing.assert_close(soft[i], owners, atol=1e-6, rtol=0)
    assert len(images.unique()) == 6, "a cut copies pixels, it blends none"


def test_a_cut_is_one_box_of_the_partner():
    box = np.array([[0.25, 0.5, 0.75, 1.0], [0, 0, 0, 0]], np.float32)
    plan = MixPlan("cutmix", np.array([1, 0]), np.ones(2, np.float32), box)
    images, soft = mix_batch(_constant(2), torch.arange(2), 2, plan)
    assert (images[0, :, 5:15, 10:20] == 1).all() and images[0].sum() == 3 * 100
    assert (images[1] == 1).all()
    torch.testing.assert_close(soft, torch.tensor([[0.75, 0.25], [0, 1]]))


def test_a_plan_depends_on_seed_epoch_step_and_rank_alone():
    torch.manual_seed(1)
    first = plan_mix(MIXUP, 8, seed=1, epoch=2, step=3, rank=0)
    torch.manual_seed(2)
    again = plan_mix(MIXUP, 8, seed=1, epoch=2, step=3, rank=0)
    np.testing.assert_array_equal(first.keep, again.keep)
    np.testing.assert_array_equal(first.partner, again.partner)
    for other in ({"seed": 2}, {"epoch": 3}, {"step": 4}, {"rank": 1}):
        place = {"seed": 1, "epoch": 2, "step": 3, "rank": 0, **other}
        assert not np.array_equal(plan_mix(MIXUP, 8, **place).keep, first.keep)


def test_shares_of_batches_follow_probability_and_switch():
    options = MixingOptions(mixup=0.2, cutmix=1.0, probability=0.6, switch=0.25)
    kinds = [plan_mix(options, 2, 0, 0, step).kind for step in range(2000)]
    assert kinds.count(None) / 2000 == pytest.approx(0.4, abs=0.04)
    assert kinds.count("cutmix") / 2000 == pytest.approx(0.15, abs=0.03)


def test_the_share_kept_is_beta_distributed():
    kept = np.concatenate([plan_mix(MIXUP, 50, 0, 0, step).keep for step in range(200)])
    assert kept.mean() == pytest.approx(0.5, abs=0.02)
    assert kept.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.05)


def test_nothing_is_mixed_when_off():
    assert not MixingOptions().active
    images, targets = _batch()
    mixed, soft = mix_batch(images, targets, 3, plan_mix(MixingOptions(), 6, 0, 0, 0))
    assert torch.equal(mixed, images) and torch.equal(soft.argmax(1), targets)


def test_given_images_are_not_changed():
    images, targets = _batch()
    before = images.clone()
    mix_batch(images, targets, 3, plan_mix(CUTMIX, 6, 0, 0, 0))
    assert torch.equal(images, before)


def test_soft_targets_and_low_precision_images_mix_too():
    images, targets = _batch()
    soft = torch.nn.functional.one_hot(targets, 3).double()
    plan = plan_mix(MIXUP, 6, 0, 0, 0)
    mixed, mixed_soft = mix_batch(images.bfloat16(), soft, 3, plan)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed_soft, mix_batch(images, targets, 3, plan)[1])


def test_label_smoothing_composes():
    images, targets = _batch()
    _, soft = mix_batch(images, targets, 3, plan_mix(MIXUP, 6, 0, 0, 0))
    loss = make_loss("cross_entropy", class_counts=[2, 2, 2], label_smoothing=0.3)
    logits = torch.randn(6, 3)
    torch.testing.assert_close(loss(logits, soft), -((0.7 * soft + 0.1) * logits.log_softmax(1)).sum(1).mean())
