"""A batch's results as a person takes them home: rows, CSV, Parquet, and a zip of overlays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import pandas as pd

from lesion_hub.app import pictures
from lesion_hub.app.intake import Upload, safe_cell
from lesion_hub.app.service import BatchItem

# The same for every file in every zip: when somebody used this page is nobody's business.
_NO_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass
class Results:
    """Grows by one item at a time; of an image only its row and its overlay are kept."""

    display_side: int
    items: list[BatchItem] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    overlays: list[tuple[str, bytes]] = field(default_factory=list)

    def add(self, item: BatchItem) -> None:
        self.rows.append(row(item))
        prediction = item.reading.prediction if item.reading else None
        if prediction is not None and prediction.explanation is not None:
            stem = item.name.rsplit(".", 1)[0] or "image"
            content = pictures.overlay(prediction, self.display_side)
            self.overlays.append((f"{len(self.rows):03d}_{stem}_heat.jpg", content))
        self.items.append(_without_pixels(item))

    def csv(self) -> Upload:
        """The rows for a spreadsheet."""
        shown = [
            {key: safe_cell(value) if isinstance(value, str) else value for key, value in row.items()} for row in self.rows
        ]
        return Upload("lesions.csv", pd.DataFrame(shown).to_csv(index=False).encode("utf-8"))

    def parquet(self) -> Upload:
        """The rows as they are, typed."""
        stream = BytesIO()
        pd.DataFrame(self.rows).to_parquet(stream, index=False)
        return Upload("lesions.parquet", stream.getvalue())

    def zip(self) -> Upload:
        """The overlays; JPEGs do not get smaller by deflating."""
        stream = BytesIO()
        with ZipFile(stream, "w", ZIP_STORED) as archive:
            for name, content in self.overlays:
                archive.writestr(ZipInfo(name, _NO_DATE), content)
        return Upload("overlays.zip", stream.getvalue())


def row(item: BatchItem) -> dict[str, Any]:
    """A file's row: what the model says, or the error."""
    if item.reading is None:
        return {"file": item.name, "error": item.error}
    served, prediction = item.reading.served, item.reading.prediction
    return {
        "file": item.name,
        "error": None,
        "model": served.name,
        "version": served.version,
        "label": prediction.label,
        "probability": prediction.probabilities[prediction.label],
        "malignancy": prediction.malignancy,
        **{f"suspicious_{name}": reached for name, reached in prediction.decisions.items()},
        "disagreement": prediction.disagreement,
        "warnings": " ".join(prediction.flags),
        **{f"p_{label}": value for label, value in prediction.probabilities.items()},
    }


def _without_pixels(item: BatchItem) -> BatchItem:
    """The item as the table shows it, its image and maps let go."""
    if item.reading is None:
        return item
    bare = replace(item.reading.prediction, explanation=None)
    return BatchItem(item.name, replace(item.reading, prediction=bare))
