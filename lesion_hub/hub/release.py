"""A release: a model folder, checked before it is published as a version, and what publishing it gives."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from lesion_hub.config import CONFIG_NAME, ENGINE_VARIABLE, ModelConfig, dump_json, with_graph
from lesion_hub.errors import ConfigError, StoreError
from lesion_hub.hub.layout import (
    GRAPH_NAMES,
    MEMBER_GATES,
    MODELING_NAME,
    WEIGHTS_NAME,
    is_ensemble,
    load_config,
    modeling_source,
    publishable_files,
)
from lesion_hub.hub.licences import card_licence, check_licence, training_licences
from lesion_hub.hub.versions import Version, add_entry, changelog_notes, checked_notes

if TYPE_CHECKING:
    from lesion_hub.models import LesionClassifier

logger = logging.getLogger(__name__)

Content: TypeAlias = dict[str, Path | bytes]
"""Files of a repo, by name: where each lies on disk, or what is in it."""


@dataclass(frozen=True)
class Release:
    """A checked version on its way to a registry or the Hub: its number, its notes, its files without the changelog."""

    version: Version
    notes: str
    files: Content

    @property
    def title(self) -> str:
        """The title of its commit."""
        return f"Release {self.version}"

    def changelog_on(self, previous: str | None) -> str:
        """Return the changelog with this version on top; unchanged when an interrupted publish already wrote that entry."""
        if previous and next(iter(changelog_notes(previous).items()), None) == (str(self.version), self.notes):
            return previous
        return add_entry(previous, self.version, self.notes)


@dataclass(frozen=True)
class Published:
    """Where a version now stands. ``commit`` is None in a registry; ``already`` says that it stood there before, the same."""

    name: str
    version: str
    location: str
    commit: str | None = None
    already: bool = False

    def __str__(self) -> str:
        return f"{'already ' if self.already else ''}published {self.name} {self.version}: {self.location}"


def prepare_release(
    folder: Path, version: str, notes: str | None, *, members: Iterable[Path] = (), force_licence: bool = False
) -> Release:
    """Check everything that can be checked before anything is written: version, notes, files, weights, licence.

    ``members`` are the model folders of an ensemble's members, whose training data bind the ensemble too.
    """
    number, text = Version.parse(version), checked_notes(notes)
    files: Content = {name: folder / name for name in publishable_files(folder)}
    config = load_config(folder)
    if isinstance(config, ModelConfig) and config.lesion_hub.temperature is None:  # an ensemble's config cannot lack it
        raise StoreError(f"{folder}: is not calibrated; run lesion-hub calibrate {folder} first")
    if WEIGHTS_NAME in files:
        from lesion_hub.hub.bundle import bundled_members, read_bundle  # these load torch, which no other check needs
        from lesion_hub.hub.format import read_model, require_scores
        from lesion_hub.hub.gate_file import read_gate
        from lesion_hub.models.zoo import network_source

        classifiers = read_bundle(folder) if is_ensemble(folder) else [read_model(folder)[0]]
        for classifier in classifiers:
            require_scores(classifier, folder)
        if MODELING_NAME in files:
            # The folder's own copy may be of an older version, or somebody's: it is never published. This version's code
            # is, now that the weights load strictly into its network.
            source = None if is_ensemble(folder) else network_source(classifiers[0].architecture)
            files[MODELING_NAME] = modeling_source(source).encode("utf-8")
        if isinstance(config, ModelConfig):
            read_gate(folder, config)
            files |= _graph_files(folder, config, classifiers[0])
        else:
            for i, member in enumerate(bundled_members(folder)):
                read_gate(folder, member, MEMBER_GATES.format(i))
    if not force_licence:
        check_licence(card_licence(folder), [pair for place in (folder, *members) for pair in training_licences(place)])
    return Release(number, text, files)


def _graph_files(folder: Path, config: ModelConfig, classifier: LesionClassifier) -> Content:
    """Make the graph of a model whose folder has none, and the config that names it; nothing where it cannot be made.

    The folder is left as it is: it may be somebody's published version. The graphs that it has are checked.
    """
    from lesion_hub.hub.graph import write_graph  # imports torch
    from lesion_hub.hub.onnx_file import has_graph, read_graph

    for precision in config.lesion_hub.graphs or ():
        read_graph(folder, config, precision)
    if has_graph(config) or os.environ.get(ENGINE_VARIABLE) == "torch":
        return {}
    try:
        graph = write_graph(classifier, folder / WEIGHTS_NAME)
    except ConfigError as error:
        logger.warning("%s: published without %s: %s", folder, GRAPH_NAMES["float32"], error)
        return {}
    named = with_graph(config, hashlib.sha256(graph).hexdigest())
    return {GRAPH_NAMES["float32"]: graph, CONFIG_NAME: dump_json(named).encode("utf-8")}
