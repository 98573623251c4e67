"""A checked release: what ``publish`` is about to make visible, whatever the place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import ModelCard

from lesion_hub.config import ModelConfig
from lesion_hub.errors import StoreError
from lesion_hub.hub.layout import CARD_NAME, CHANGELOG_NAME, load_config, publishable_files
from lesion_hub.hub.licences import check_licence
from lesion_hub.hub.versions import Version, add_entry, changelog_notes, checked_notes


@dataclass(frozen=True)
class Release:
    """A version's files (by name in the repo), its number and its notes."""

    version: Version
    notes: str
    files: dict[str, Path]

    @property
    def title(self) -> str:
        return f"Release {self.version}"

    def changelog_on(self, previous: str | None) -> str:
        """The changelog with this version on top; unchanged when an interrupted publish already wrote that entry."""
        if previous and next(iter(changelog_notes(previous).items()), None) == (str(self.version), self.notes):
            return previous
        return add_entry(previous, self.version, self.notes)


@dataclass(frozen=True)
class Published:
    """Where a version now stands. ``commit`` is None in a registry."""

    name: str
    version: str
    location: str
    commit: str | None = None


def prepare_release(
    folder: Path, version: str, notes: str | None, *, members: Iterable[Path] = (), force_licence: bool = False
) -> Release:
    """Check everything that can be checked before anything is written: version, notes, files, hash, licence.

    ``members`` are the model folders of an ensemble's members, whose training data bind the ensemble too.
    """
    number, text = Version.parse(version), checked_notes(notes)
    names = publishable_files(folder)
    _check_calibrated(folder)
    if not force_licence:
        check_licence(card_licence(folder), [pair for place in (folder, *members) for pair in training_licences(place)])
    return Release(number, text, {name: folder / name for name in names if name != CHANGELOG_NAME})


def _check_calibrated(folder: Path) -> None:
    """Probabilities that nobody calibrated are not published: an ensemble's config cannot lack its temperature."""
    config = load_config(folder)
    if isinstance(config, ModelConfig) and config.lesion_hub.temperature is None:
        raise StoreError(f"{folder}: is not calibrated; run lesion-hub calibrate {folder} first")


def card_licence(folder: Path) -> str | None:
    """The licence id in the front matter of the card, or None."""
    path = folder / CARD_NAME
    try:
        licence = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.get("license")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise StoreError(f"{path}: the front matter cannot be read ({reason}); mend the YAML between the --- lines") from None
    return str(licence) if licence else None


def training_licences(folder: Path) -> list[tuple[str, str]]:
    """(data set, licence) of every source that the weights saw."""
    config = load_config(folder)
    training = config.lesion_hub.training if isinstance(config, ModelConfig) else config.training
    return [(source.name, source.license) for source in training.data] if training else []
