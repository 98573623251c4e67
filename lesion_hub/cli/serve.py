"""Commands that serve the page: on this machine, and as a Space."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lesion_hub.cli.options import EngineOption, JsonOption, OptionalDeviceOption, RegistryOption, RevisionOption
from lesion_hub.cli.output import print_json, say


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="Hub id, registry name or folder, NAME or NAME@v1.0.0; repeatable, the first is the default."
        ),
    ] = None,
    revision: RevisionOption = None,
    registry: RegistryOption = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port; default: the first free one from 7860.")] = None,
    device: OptionalDeviceOption = None,
    engine: EngineOption = "auto",
    max_mb: Annotated[float | None, typer.Option("--max-mb", help="Largest image, in MB.  [default: 20]")] = None,
    max_megapixels: Annotated[
        float | None, typer.Option("--max-megapixels", help="Most pixels, in millions.  [default: 50]")
    ] = None,
    max_files: Annotated[int | None, typer.Option("--max-files", help="Most files in a batch.  [default: 50]")] = None,
    max_batch_mb: Annotated[float | None, typer.Option("--max-batch-mb", help="Largest batch, in MB.  [default: 200]")] = None,
    memory_mb: Annotated[
        float | None, typer.Option("--memory-mb", help="Most memory for files that arrive or wait, in MB.  [default: 400]")
    ] = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", help="Model calls at once.  [default: 1]")] = None,
    queue_size: Annotated[int | None, typer.Option("--queue-size", help="Requests that may wait.  [default: 32]")] = None,
) -> None:
    """Serve the demo page on this machine. It keeps no image, and nothing leaves the machine.

    Without `--device` it runs on CUDA where there is one.

    Example: `lesion-hub serve --model ham10000-trio --port 7860`
    """
    from lesion_hub.app.options import AppOptions
    from lesion_hub.app.serving import launch, leave_a_core, stop_when_terminated

    stop_when_terminated()
    leave_a_core()
    options = AppOptions.of(
        models=tuple(model) if model else None,
        revision=revision,
        registry=registry,
        device=device,
        engine=engine,
        max_bytes=_scaled(max_mb),
        max_pixels=_scaled(max_megapixels),
        max_files=max_files,
        max_batch_bytes=_scaled(max_batch_mb),
        memory_bytes=_scaled(memory_mb),
        concurrency=concurrency,
        queue_size=queue_size,
    )
    running = launch(options, host=host, port=port, block=False)
    say(f"Serving {', '.join(served.title for served in running.page.service.models.values())} on {running.url}")
    running.wait()


def _scaled(millions: float | None) -> int | None:
    return None if millions is None else int(millions * 1_000_000)


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
    registry: RegistryOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and show it; write nothing.")] = False,
    json_: JsonOption = False,
) -> None:
    """Publish the demo page as a Space that answers with pinned versions of models.

    A model of the Hub is fetched by the Space in exactly that version; one of the local registry travels within the Space.
    A model without a version is pinned to its highest. Files that you added to the Space stay; the others are replaced.

    Example: `lesion-hub publish-space org/skin-demo --model org/ham10000-trio@v1.1.0`
    """
    from lesion_hub.hub.remote import quiet_downloads
    from lesion_hub.hub.space import publish_space as push

    with quiet_downloads(json_):
        done = push(name, model, folder=folder, private=private, hardware=hardware, registry=registry, dry_run=dry_run)
    if json_:
        print_json(asdict(done))
        return
    verb = "would publish" if dry_run else "published" if done.changed else "already up to date:"
    say(f"{verb} {done.location} with {', '.join(done.models)}")
    if dry_run:
        say("\n".join(_by_model(done.files)))
    if done.needs_token:
        say(f"not public: {', '.join(done.needs_token)}; add HF_TOKEN, a token that may read them, to the Space's secrets")


def _by_model(files: Iterable[str]) -> list[str]:
    """List the files, those of a model that travels within the Space in one line.

    >>> _by_model(["app.py", "registry/a/v1.0.0/config.json", "registry/a/v1.0.0/plots/roc.png"])
    ['app.py', 'registry/a/v1.0.0/ (2 files)']
    """
    lines: dict[str, int] = {}
    for file in files:
        parts = file.split("/")
        place = "/".join(parts[:3]) + "/" if parts[0] == "registry" and len(parts) > 3 else file
        lines[place] = lines.get(place, 0) + 1
    return [f"{place} ({count} files)" if place.endswith("/") else place for place, count in lines.items()]
