from __future__ import annotations

import pytest

from lesion_hub.config import validated
from lesion_hub.errors import ConfigError
from training.augmentation import AugmentationOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotate": 10}, "unknown key 'rotate'"),
        ({"artefacts": {"hairs": 0.1}}, "did you mean 'hair'"),
        ({"scale": (0.9, 0.5)}, "give the smaller one first"),
        ({"scale": (0.5, 1.5)}, "at most 1"),
        ({"artefact_severity": (1, 9)}, "from 1 to 5"),
        ({"hflip": 1.5}, "hflip"),
    ],
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(ConfigError, match=message):
        validated(AugmentationOptions, options, "augmentation")
