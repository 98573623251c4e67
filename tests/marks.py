"""Marks that several tests share."""

from __future__ import annotations

import os

import pytest

one_of_many = pytest.mark.skipif(
    not os.environ.get("LESION_HUB_ALL_NETWORKS"), reason="LESION_HUB_ALL_NETWORKS=1 tries all networks, the largest too"
)
"""Of a kind that other networks stand for, or so large that it takes long: left out unless all are asked for."""

walked_on_request = pytest.mark.skipif(
    not os.environ.get("LESION_HUB_ALL_EXAMPLES"), reason="LESION_HUB_ALL_EXAMPLES=1 walks through examples/afternoon.sh too"
)
"""An example of many commands, each of which other tests run too."""
