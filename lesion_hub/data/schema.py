"""The one schema that every source of images is brought to: eight columns, the same names and types everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from lesion_hub.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset

    from lesion_hub.taxonomy import LabelSpace

    AnyDataset: TypeAlias = Dataset | IterableDataset

COLUMNS = ("image", "label", "image_id", "group", "age", "sex", "site", "source")
OLDEST_AGE = 120
"""The highest age, in years, that is taken for one."""


def features(space: LabelSpace) -> Features:
    """Return the `datasets.Features` of the schema for one label space.

    ``image`` is an encoded image (path or bytes) that decodes lazily; ``label`` an index into ``space.labels``;
    ``group`` the lesion or patient that a split must not cut; ``age`` float32 years; ``sex`` and ``site`` the canonical
    words of the taxonomy; ``source`` the data set that the row came from. Age, sex and site may be None.

    >>> from lesion_hub.taxonomy import label_space
    >>> features(label_space("binary"))["label"].names
    ['benign', 'malignant']
    """
    from datasets import ClassLabel, Features, Image, Value

    return Features(
        {
            "image": Image(),
            "label": ClassLabel(names=list(space.labels)),
            "image_id": Value("string"),
            "group": Value("string"),
            "age": Value("float32"),
            "sex": Value("string"),
            "site": Value("string"),
            "source": Value("string"),
        }
    )


def check_schema(dataset: AnyDataset, space: LabelSpace) -> None:
    """Raise `DataError` unless ``dataset`` has exactly the columns and types of the schema for ``space``."""
    from datasets import ClassLabel

    found = dataset.features or {}
    missing = [column for column in COLUMNS if column not in found]
    if missing:
        raise DataError(f"the data set lacks the column {missing[0]!r}; read it with lesion_hub.data.read")
    label = found["label"]
    if not isinstance(label, ClassLabel) or tuple(label.names) != space.labels:
        names = ", ".join(label.names) if isinstance(label, ClassLabel) else repr(label)
        raise DataError(
            f"the labels of the data set ({names}) are not those of {space.name!r} in order; read it into that space"
        )
    for column, expected in features(space).items():
        if column not in ("image", "label") and found[column] != expected:
            raise DataError(f"column {column!r} is {found[column]}, not {expected}; read it with lesion_hub.data.read")


def not_streamed(dataset: AnyDataset) -> Dataset:
    """Return ``dataset`` itself; raise `DataError` where it is a stream, which has no rows to look up."""
    from datasets import Dataset

    if not isinstance(dataset, Dataset):
        raise DataError("a streamed data set cannot be searched or split as a whole; read it without streaming")
    return dataset


def undecoded(dataset: AnyDataset) -> AnyDataset:
    """Return the same data set, its images left as ``{"path", "bytes"}`` for `lesion_hub.data.images.load_rgb` to decode.

    Decoding by `datasets` lets damaged images raise anything and leaves EXIF rotation and 16 bits to the caller.
    """
    from datasets import Image

    return dataset.cast_column("image", Image(decode=False))


def image_paths(dataset: Dataset) -> list[str]:
    """Return the file of every image, in row order, nothing decoded; `DataError` where images are embedded without a file.

    >>> from datasets import Dataset, Features, Image
    >>> image_paths(Dataset.from_dict({"image": ["a.jpg"]}, features=Features({"image": Image()})))
    ['a.jpg']
    """
    paths: list[str] = []
    # In batches: embedded images are noticed in the first, before the bytes of all of them are in memory.
    for batch in dataset.select_columns(["image"]).with_format("arrow").iter(batch_size=1000):
        for stored in batch["image"].chunks:
            if stored.field("bytes").null_count < len(stored):
                raise DataError("images are embedded in the data set and have no file; use undecoded(dataset) and load_rgb")
            paths += stored.field("path").to_pylist()
    return paths
