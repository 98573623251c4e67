"""A folder's images are rows in a fixed order."""

from __future__ import annotations

import pytest

from lesion_hub.errors import DataError
from lesion_hub.inference.rows import Row, open_rows
from tests.inference.networks import IMAGES


def test_an_empty_folder_is_one_line(tmp_path):
    with pytest.raises(DataError, match="holds no image"):
        open_rows(tmp_path)


def test_rows_know_their_place(folder):
    rows = list(open_rows(folder))
    assert isinstance(rows[0], Row)
    assert [row.index for row in rows] == list(range(IMAGES))
    assert [row.image_id for row in rows] == sorted(row.image_id for row in rows)
