"""The folder of a model that was trained elsewhere: what is known of its training, and plainly what is not."""

from __future__ import annotations

from pathlib import Path

from lesion_hub.config import CONFIG_NAME, DataSource, Training, dump_json, load_model_config
from lesion_hub.data.splits.manifest import PartRecord, describe_parts, load_manifest
from lesion_hub.errors import ConfigError
from lesion_hub.files import require_new_folder, write_json, write_text
from lesion_hub.hub.card import provisional_card
from lesion_hub.hub.format import StorageType, write_model
from lesion_hub.hub.layout import CARD_NAME, METRICS_NAME, SPLIT_NAME
from lesion_hub.models import LesionClassifier

UNKNOWN_SPLIT = {"method": "unknown"}


def write_trained_elsewhere(
    folder: Path,
    classifier: LesionClassifier,
    *,
    licence: str,
    training_data: str | None = None,
    split: str | Path | None = None,
    storage: StorageType = "float32",
) -> None:
    """Write a new folder that can be calibrated, measured and then published.

    Args:
        folder: where; it must be new or empty.
        classifier: see ``LesionClassifier.from_network``.
        licence: what the weights are under, such as ``cc-by-nc-4.0``; the training data's terms bind them.
        training_data: in a few words what it was trained on; None says that this is not recorded.
        split: the file (``lesion-hub data split``) of the split that it was trained by. None says that nobody knows which
            images it has seen, and then its card says what that means for its results.
        storage: precision of the stored weights.
    """
    require_new_folder(folder)
    record = dict(UNKNOWN_SPLIT)
    split_hash = None
    if split is not None:
        manifest = load_manifest(split, allow_leaks=True)
        ids = {part: [name for name, place in manifest.part_of.items() if place == part] for part in manifest.parts}
        record = {**manifest.describe(), **describe_parts({part: PartRecord.of(names, ()) for part, names in ids.items()})}
        split_hash = manifest.hash
    training = _training(training_data, licence, split_hash)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / METRICS_NAME, {})
    write_json(folder / SPLIT_NAME, record)
    write_text(folder / CARD_NAME, provisional_card(folder.name, licence, "timm", "A model that has not been evaluated yet."))
    write_model(folder, classifier, training=training, storage=storage)


def record_training_data(folder: str | Path, training_data: str, licence: str) -> None:
    """Write into a model folder's config what it was trained on, where nothing is recorded yet."""
    place = Path(folder)
    config = load_model_config(place)
    if config.lesion_hub.training is not None:
        names = ", ".join(source.name for source in config.lesion_hub.training.data)
        raise ConfigError(f"{place}: its training data are recorded already ({names}); they cannot be exchanged")
    section = config.lesion_hub.model_copy(update={"training": _training(training_data, licence, None)})
    write_text(place / CONFIG_NAME, dump_json(config.model_copy(update={"lesion_hub": section})))


def _training(data: str | None, licence: str, split_hash: str | None) -> Training | None:
    return None if data is None else Training(data=(DataSource(name=data, license=licence),), split_hash=split_hash)
