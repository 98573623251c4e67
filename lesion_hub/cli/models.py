"""Commands about models and their versions."""

from __future__ import annotations

import fnmatch
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lesion_hub.cli.options import JsonOption, ModelArgument, RegistryOption, RevisionOption, RunArgument
from lesion_hub.cli.output import print_facts, print_json, print_table, say


def models(
    search: Annotated[str, typer.Argument(help="Word or glob to look for in names.")] = "*",
    all_: Annotated[bool, typer.Option("--all", help="Show every architecture, not the first 40.")] = False,
    registry: RegistryOption = None,
    json_: JsonOption = False,
) -> None:
    """List published models of the registry, and architectures with what their families do: train, have which heat maps.

    Example: `lesion-hub models mobilenet`
    """
    from lesion_hub.hub.registry import Registries
    from lesion_hub.hub.versions import without_revision
    from lesion_hub.models.zoo import families, list_architectures, name_pattern

    without_revision(search, "write lesion-hub info {name}@{revision}, or lesion-hub models {name}")
    places = Registries(registry)
    homes = {name: places.holding(name)[0] for name in fnmatch.filter(places.names(), name_pattern(search))}
    published = {name: home.versions(name) for name, home in homes.items()}
    architectures = list_architectures(search)
    if json_:
        named = {architecture.family for architecture in architectures}
        print_json(
            {
                "registry": published,
                "registry_of": {name: str(home.root) for name, home in homes.items()},
                "registry_root": str(places.roots[0]),
                "architectures": [architecture.to_dict() for architecture in architectures],
                "families": {name: family.to_dict() for name, family in families().items() if name in named},
            }
        )
        return
    if published:
        rows = ((name, " ".join(tags), homes[name].root) for name, tags in published.items())
        print_table(("published model", "versions", "registry"), rows)
    shown = architectures if all_ else architectures[:40]
    answers = {True: "yes", False: "no", None: "not tried"}
    maps = {True: "all methods", False: "all but the layer-wise", None: ""}
    facts = (
        (a.name, a.family, f"{a.image_size[0]}x{a.image_size[1]}", answers[a.pretrained], answers[a.trains], maps[a.layer_maps])
        for a in shown
    )
    if shown:
        print_table(("architecture", "family", "input", "pretrained", "trains", "heat maps"), facts)
    if not published and not shown:
        say(f"no published model and no architecture has {search!r} in its name; without a word all are listed")
    if len(shown) < len(architectures):
        say(f"… and {len(architectures) - len(shown)} more: give a word to search for, or --all")


def info(
    name: ModelArgument, revision: RevisionOption = None, registry: RegistryOption = None, json_: JsonOption = False
) -> None:
    """Show what a version is: labels, licence, calibration, operating points, rules of its answers, notes.

    Example: `lesion-hub info dermoscopy-trio`
    """
    from lesion_hub.hub import store

    found = store.info(name, revision, registry=registry)
    if json_:
        print_json(found.to_dict())
        return
    print_facts(
        {
            "name": found.name,
            "kind": found.kind,
            "version": found.version,
            "versions": " ".join(found.versions),
            "registry": found.registry,
            "hidden by it": ", ".join(f"{found.name} of {root}" for root in found.also_in),
            "architecture": found.architecture,
            "members": ", ".join(found.members),
            "labels": f"{found.label_space}: {' '.join(found.labels)}",
            "licence": found.licence,
            "size": f"{found.size_bytes / 1e6:.1f} MB",
            "temperature": f"{found.temperature:.4g}" if found.temperature is not None else "not calibrated",
            "operating points": ", ".join(f"{k} at {v:.3f}" for k, v in found.operating_points.items()),
            **found.rules,
            "weights sha256": found.weights_sha256,
        }
    )
    for version, notes in found.notes.items():
        say(f"\n{version}: {notes}")


def versions(name: ModelArgument, registry: RegistryOption = None, json_: JsonOption = False) -> None:
    """List the versions of a model, lowest first.

    Example: `lesion-hub versions dermoscopy-trio`
    """
    from lesion_hub.hub import store

    tags, root = store.list_versions(name, registry=registry), store.registry_of(name, registry=registry)
    if json_:
        print_json({"name": name, "versions": tags, "registry": None if root is None else str(root)})
        return
    say("\n".join(tags) if tags else f"{name} has no published version")
    if root is not None:
        say(f"in the registry {root}", err=True)


def publish(
    folder: RunArgument,
    name: Annotated[str, typer.Argument(help="org/name for the Hub, a plain name for the registry.", show_default=False)],
    version: Annotated[str, typer.Option("--version", help="X.Y.Z; one that exists is never changed.", show_default=False)],
    notes: Annotated[str, typer.Option("--notes", help="What changed; goes on top of CHANGELOG.md.", show_default=False)],
    registry: RegistryOption = None,
    private: Annotated[bool, typer.Option("--private", help="Create the Hub repo as a private one.")] = False,
    force_licence: Annotated[
        bool, typer.Option("--force-licence", help="Publish under a licence more permissive than the data's.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Publish a folder as one immutable version, on the Hub or in the registry.

    Example: `lesion-hub publish runs/x org/ham-lite0 --version 1.0.0 --notes "First release"`
    """
    from lesion_hub.hub import store
    from lesion_hub.hub.remote import quiet_downloads

    with quiet_downloads(json_):
        done = store.publish(
            folder,
            name,
            version=version,
            notes=notes,
            registry=registry,
            private=private,
            force_licence=force_licence,
        )
    if json_:
        print_json(asdict(done))
    else:
        say(done)


def pull(
    name: ModelArgument,
    revision: RevisionOption = None,
    to: Annotated[Path | None, typer.Option("--to", help="New folder to copy the files into.")] = None,
    registry: RegistryOption = None,
    json_: JsonOption = False,
) -> None:
    """Fetch a version (and an ensemble's members), so that it loads offline from then on.

    Example: `lesion-hub pull org/ham-lite0 --revision v1.0.0`
    """
    from lesion_hub.hub import store
    from lesion_hub.hub.remote import quiet_downloads

    with quiet_downloads(json_):
        found = store.pull(name, revision, to=to, registry=registry)
    if json_:
        print_json({"name": found.name, "revision": found.revision, "folder": str(found.folder)})
    else:
        say(f"{found.name} {found.revision or ''}: {found.folder}")
