from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from lesion_hub.data.artefacts import ARTEFACTS, artefact_layer, blend
from lesion_hub.training.augmentation import AugmentationOptions
from lesion_hub.training.augmentation.operations import ArtefactBank, blur, erase, halvings, recolour, resample
from tests.training.augmentation.examples import MEAN, STD, draws_of, photos_of, resample_slowly

# ------------------------------------------------------------------------------------------------ resampling


def test_resampling_is_the_per_image_definition():
    photos = photos_of(12)
    theta = draws_of(AugmentationOptions(scale=(0.3, 0.9)), 12, size=(26, 22)).theta
    assert not halvings(theta, (30, 40), (26, 22)).any()
    fast = resample(photos, theta, (26, 22)).numpy()
    slow = np.stack([resample_slowly(image, map_, (26, 22)) for image, map_ in zip(photos.numpy(), theta, strict=True)])
    assert np.abs(fast - slow).max() < 0.01


def test_flips_and_quarter_turns_are_exact():
    photo = photos_of(1, 32, 32)
    maps = {
        "as it is": ([[1, 0, 0], [0, 1, 0]], lambda x: x),
        "mirrored": ([[-1, 0, 0], [0, 1, 0]], lambda x: x[:, ::-1]),
        "upside down": ([[1, 0, 0], [0, -1, 0]], lambda x: x[::-1]),
        "turned": ([[0, -1, 0], [1, 0, 0]], lambda x: np.rot90(x, 1)),
        "upper left quarter": ([[0.5, 0, -0.5], [0, 0.5, -0.5]], None),
    }
    for name, (theta, expected) in maps.items():
        side = 32 if expected else 16
        out = resample(photo, np.array([theta], np.float32), (side, side))[0].permute(1, 2, 0).numpy()
        wanted = expected(photo[0].numpy()) if expected else photo[0, :16, :16].numpy()
        np.testing.assert_allclose(out, wanted, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("odd", [0, 1])
def test_reduction_is_antialiased(factor, odd):
    source = (24 * factor + odd, 32 * factor + odd)
    photo = photos_of(1, *source)
    whole = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    ours = resample(photo, whole, (24, 32))[0]
    pillow = Image.fromarray(photo[0].numpy()).resize((32, 24), Image.Resampling.BILINEAR)
    assert (ours.permute(1, 2, 0) - torch.from_numpy(np.asarray(pillow).copy())).abs().max() < 7
    lines = torch.zeros(1, *source, 3, dtype=torch.uint8)
    lines[:, :, ::2] = 255
    assert resample(lines, whole, (24, 32))[..., 2:-2].std() < 15, "fine lines come out gray, not broken up"


def test_each_sample_is_halved_as_its_own_scale_asks():
    photos = photos_of(3, 96, 96)
    theta = np.stack([np.diag([s, s, 1])[:2] for s in (1.0, 0.5, 0.25)]).astype(np.float32)
    assert halvings(theta, (96, 96), (24, 24)).tolist() == [2, 1, 0]
    together = resample(photos, theta, (24, 24))
    for i in range(3):
        assert torch.equal(resample(photos[i : i + 1], theta[i : i + 1], (24, 24))[0], together[i])


# ------------------------------------------------------------------------------------------------ colour and blur


def _recoloured(photos, **factors):
    """Our jitter without normalisation, 0 to 1, of float (N, 3, h, w) in 0 to 1."""
    row = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, **factors}
    return recolour(photos * 255, np.tile(np.array(list(row.values()), np.float32), (len(photos), 1)), (0, 0, 0), (1, 1, 1))


@pytest.fixture
def muted():
    """Photographs without extreme colours, so that no step of the reference clips."""
    return photos_of(3).permute(0, 3, 1, 2) / 255 * 0.4 + 0.3


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_jitter_is_torchvisions(name, factor, muted):
    expected = getattr(reference, f"adjust_{name}")(muted, factor)
    torch.testing.assert_close(_recoloured(muted, **{name: factor}), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("turn", [-0.1, 0.03, 1 / 3])
def test_hue_turns_the_colour_circle_as_torchvisions_does(turn, muted):
    def hue(images):
        red, green, blue = images.unbind(1)
        return torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue) / (2 * torch.pi)

    ours, expected = _recoloured(muted, hue=turn), reference.adjust_hue(muted, turn)
    colourful = muted.amax(1) - muted.amin(1) > 0.1
    for turned, tolerance in ((ours, 1e-3), (expected, 0.02)):
        off = (hue(turned) - hue(muted) - turn + 0.5).remainder(1) - 0.5
        assert off[colourful].abs().max() < tolerance


def test_hue_keeps_gray_and_the_mean_and_comes_round(muted):
    gray = muted[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(_recoloured(gray, hue=0.3), gray, atol=1e-5, rtol=0)
    torch.testing.assert_close(_recoloured(muted, hue=0.08).mean(1), muted.mean(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(_recoloured(muted, hue=1.0), muted, atol=1e-5, rtol=0)


def test_all_jitter_at_once_is_one_step_after_the_other(muted):
    steps = muted
    for factor in ({"brightness": 1.1}, {"contrast": 0.8}, {"saturation": 1.2}, {"hue": 0.02}):
        steps = _recoloured(steps, **factor)
    ours = _recoloured(muted, brightness=1.1, contrast=0.8, saturation=1.2, hue=0.02)
    torch.testing.assert_close(ours, steps, atol=1e-5, rtol=0)


def test_jitter_and_normalisation_are_one(muted):
    factors = np.array([[1.4, 1.2, 1.3, 0.1]] * 3, np.float32)
    plain = recolour(muted * 255, factors, (0, 0, 0), (1, 1, 1))
    assert plain.min() >= 0 and plain.max() <= 1, "colours out of range are clipped"
    torch.testing.assert_close(
        recolour(muted * 255, factors, MEAN, STD), reference.normalize(plain, MEAN, STD), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(recolour(muted * 255, None, MEAN, STD), reference.normalize(muted, MEAN, STD))


def test_blur_is_torchvisions_and_touches_nothing_else():
    photos = photos_of(3).permute(0, 3, 1, 2).float()
    sigma = np.array([0.0, 0.7, 1.9], np.float32)
    blurred = blur(photos.clone(), sigma, longest=2.0)
    assert torch.equal(blurred[0], photos[0])
    for i in (1, 2):
        expected = reference.gaussian_blur(photos[i], [13, 13], [float(sigma[i])] * 2)
        torch.testing.assert_close(blurred[i], expected, atol=1e-2, rtol=0)


# ------------------------------------------------------------------------------------------------ artefacts and erasing


def test_an_erased_box_is_empty_and_the_rest_untouched():
    images = torch.rand(3, 3, 20, 10) + 1
    before = images.clone()
    erased = erase(images, np.array([[0.25, 0.5, 0.75, 1.0], [0, 0, 0, 0], [0, 0, 1, 1]], np.float32))
    assert (erased[0, :, 5:15, 5:] == 0).all() and (erased[0] == 0).sum() == 3 * 50
    assert torch.equal(erased[1], before[1]) and (erased[2] == 0).all()


@pytest.mark.parametrize("kind", sorted(ARTEFACTS))
def test_artefacts_are_the_very_layers_of_the_evaluation(kind):
    options = AugmentationOptions(artefacts={kind: 1.0}, artefact_layers=2, artefact_severity=(3, 3))
    bank = ArtefactBank(options, (40, 48), seed=5, device=torch.device("cpu"))
    photos = photos_of(3, 40, 48)
    ours = bank.lay_over(photos.permute(0, 3, 1, 2).float(), {kind: np.array([1, -1, 0])}).permute(0, 2, 3, 1)
    for i, number in ((0, 1), (2, 0)):
        expected = blend(photos[i].numpy(), artefact_layer(kind, (48, 40), 3, 5 * 2 + number))
        assert np.abs(ours[i].numpy() - expected).max() <= 1.5
    assert torch.equal(ours[1], photos[1].float())
