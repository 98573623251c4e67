"""Which label a map is about, in the ensemble's words and in each member's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lesion_hub.errors import TaxonomyError
from lesion_hub.taxonomy import LabelMap, LabelSpace, label_space

Selection = NDArray[np.bool_]


def select(target: str, space: LabelSpace) -> tuple[str, Selection]:
    """A label's canonical name and the (C,) labels it stands for; ``malignant`` and ``benign`` work in finer spaces too.

    >>> select("malignant", label_space("isic2017"))[1].tolist()
    [True, False, False]
    """
    chosen = np.zeros(len(space), dtype=bool)
    try:
        index = space.index(target)
    except TaxonomyError:
        binary = label_space("binary")
        if target.lower() not in binary.labels or not space.maps_to(binary):
            raise
        wanted = binary.index(target)
        chosen[[i for i, to in enumerate(space.map_to(binary).indices) if to == wanted]] = True
        return binary.labels[wanted], chosen
    chosen[index] = True
    return space.labels[index], chosen


def for_member(selected: Selection, mapping: LabelMap) -> Selection:
    """(N, C) labels of the ensemble to the (N, C_m) of a member that stand for them."""
    return (selected.astype(np.float64) @ mapping.matrix.T) > 0
