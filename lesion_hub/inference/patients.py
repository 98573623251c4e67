"""What may be known of the patient beside the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from lesion_hub.errors import ConfigError
from lesion_hub.models import encode_metadata
from lesion_hub.taxonomy import nearest

Patient: TypeAlias = Mapping[str, Any]
FIELDS = ("age", "sex", "site")


def encode_patients(patients: Sequence[Patient | None] | None) -> Tensor | None:
    """(N, METADATA_INPUTS) float32, zeros where nothing is known; None when nothing is known of anyone.

    >>> encode_patients([{"age": 50}, None]).shape[0]
    2
    """
    if patients is None or not any(patients):
        return None
    known = [_checked(patient or {}) for patient in patients]
    return encode_metadata(
        [patient.get("age") for patient in known],
        [patient.get("sex") for patient in known],
        [patient.get("site") for patient in known],
    )


def _checked(patient: Patient) -> Patient:
    for key in patient:
        if key not in FIELDS:
            raise ConfigError(f"metadata: unknown key {key!r}; {nearest(key, FIELDS)}")
    return patient
