"""The command that serves the page."""

from __future__ import annotations

from typing import Annotated

import typer

from lesion_hub.cli.models import Revision, Root


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", "-m", help="Hub id, registry name or folder, NAME or NAME@v1.0.0; repeatable, the first is the default."
        ),
    ] = None,
    revision: Revision = None,
    registry: Root = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port; default: the first free one from 7860.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda; default: CUDA where there is one.")] = None,
    max_mb: Annotated[float | None, typer.Option("--max-mb", help="Largest image, in MB.  [default: 20]")] = None,
    max_megapixels: Annotated[
        float | None, typer.Option("--max-megapixels", help="Most pixels, in millions.  [default: 50]")
    ] = None,
    max_files: Annotated[int | None, typer.Option("--max-files", help="Most files in a batch.  [default: 50]")] = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", help="Model calls at once.  [default: 1]")] = None,
    queue_size: Annotated[int | None, typer.Option("--queue-size", help="Requests that may wait.  [default: 32]")] = None,
) -> None:
    """Serve the demo page on this machine. It keeps no image, and nothing leaves the machine.

    Example: `lesion-hub serve --model ham10000-trio --port 7860`
    """
    from lesion_hub.app import AppOptions, launch
    from lesion_hub.app.environment import leave_a_core

    leave_a_core()
    options = AppOptions.of(
        models=tuple(model) if model else None,
        revision=revision,
        registry=registry,
        device=device,
        max_bytes=_scaled(max_mb),
        max_pixels=_scaled(max_megapixels),
        max_files=max_files,
        concurrency=concurrency,
        queue_size=queue_size,
    )
    running = launch(options, host=host, port=port, block=False)
    typer.echo(f"Serving {', '.join(served.title for served in running.page.service.models.values())} on {running.url}")
    running.wait()


def _scaled(millions: float | None) -> int | None:
    return None if millions is None else int(millions * 1_000_000)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel="Use a model")(serve)
