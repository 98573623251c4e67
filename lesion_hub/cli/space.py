"""The command that publishes the Space."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lesion_hub.cli.models import Root
from lesion_hub.cli.output import Json, print_json


def publish_space(
    name: Annotated[str, typer.Argument(help="org/name of the Space.", show_default=False)],
    model: Annotated[
        list[str],
        typer.Option("--model", help="org/name@v1.0.0, or a registry name; several times for several.", show_default=False),
    ],
    private: Annotated[bool, typer.Option("--private", help="Create the Space as a private one.")] = False,
    hardware: Annotated[
        str | None, typer.Option("--hardware", help="Flavour to run on, such as cpu-basic or t4-small; may cost money.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="A Space of your own, made from a copy of the packaged one.")
    ] = None,
    registry: Root = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and show it; write nothing.")] = False,
    json_: Json = False,
) -> None:
    """Publish the demo page as a Space that answers with pinned versions of models.

    A model of the Hub is fetched by the Space in exactly that version; one of the local registry travels within the Space.
    A model without a version is pinned to its highest. Files that you added to the Space stay; the others are replaced.

    Example: `lesion-hub publish-space org/skin-demo --model org/ham10000-trio@v1.0.0`
    """
    from lesion_hub.hub.remote import quiet_downloads
    from lesion_hub.hub.space_upload import publish_space as push

    with quiet_downloads(json_):
        done = push(
            name,
            model,
            folder=folder,
            private=private,
            hardware=hardware,
            registry=registry,
            dry_run=dry_run,
        )
    if json_:
        print_json(asdict(done))
        return
    verb = "would publish" if dry_run else "published" if done.changed else "already up to date:"
    typer.echo(f"{verb} {done.location} with {', '.join(done.models)}")
    if dry_run:
        typer.echo("\n".join(_by_model(done.files)))
    if done.needs_token:
        typer.echo(
            f"not public: {', '.join(done.needs_token)}; add HF_TOKEN, a token that may read them, to the Space's secrets"
        )


def _by_model(files: Iterable[str]) -> list[str]:
    """The files, those of a model that travels along in one line.

    >>> _by_model(["app.py", "registry/a/v1.0.0/config.json", "registry/a/v1.0.0/plots/roc.png"])
    ['app.py', 'registry/a/v1.0.0/ (2 files)']
    """
    lines: dict[str, int] = {}
    for file in files:
        parts = file.split("/")
        place = "/".join(parts[:3]) + "/" if parts[0] == "registry" and len(parts) > 3 else file
        lines[place] = lines.get(place, 0) + 1
    return [f"{place} ({count} files)" if place.endswith("/") else place for place, count in lines.items()]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("publish-space", rich_help_panel="Models and versions")(publish_space)
