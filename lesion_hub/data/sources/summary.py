"""What there is to say about a data set before anything is trained on it: the data of ``lesion-hub data show``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from lesion_hub.data.sources.report import ReadResult

if TYPE_CHECKING:
    from datasets import Dataset


def summarise(result: ReadResult) -> dict[str, Any]:
    """Counts of everything but pixels, as plain JSON values.

    ``classes`` counts images per label in the order of the space (0 for a label without images); ``groups`` says how
    many lesions or patients there are and how large the largest is; ``missing`` how many rows lack a patient fact. A
    stream has none of these counts.
    """
    from datasets import IterableDataset

    summary = {
        "source": result.report.source,
        "place": result.report.place,
        "space": result.space.name,
        "labels": list(result.space.labels),
    }
    if not isinstance(result.dataset, IterableDataset):
        summary.update(_counts(result.dataset, result))
    return {**summary, "report": result.report.to_dict()}


def _counts(dataset: Dataset, result: ReadResult) -> dict[str, Any]:
    facts = dataset.select_columns(["label", "group", "age", "sex", "site", "source"]).to_pandas()
    labels = facts["label"].value_counts()
    group_sizes = facts["group"].value_counts()
    ages = facts["age"].dropna()
    return {
        "images": len(facts),
        "classes": {name: int(labels.get(index, 0)) for index, name in enumerate(result.space.labels)},
        "groups": {
            "count": len(group_sizes),
            "largest": int(group_sizes.max()),
            "with_several_images": int((group_sizes > 1).sum()),
        },
        "splits": dict(sorted(Counter(result.official_split.values()).items())) if result.official_split else None,
        "age": {name: float(getattr(ages, name)()) for name in ("min", "median", "max")} if len(ages) else None,
        "sex": _tally(facts["sex"].dropna()),
        "site": _tally(facts["site"].dropna()),
        "sources": _tally(facts["source"]),
        "missing": {name: int(facts[name].isna().sum()) for name in ("age", "sex", "site")},
    }


def _tally(words: Any) -> dict[str, int]:
    return {str(word): int(count) for word, count in words.value_counts().items()}
