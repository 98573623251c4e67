"""Commands that serve the page: on this machine, and as a Space."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lesion_hub import DEFAULT_MODEL
from lesion_hub.cli.options import EngineOption, JsonOption, OptionalDeviceOption, RegistryOption, RevisionOption
from lesion_hub.cli.output import print_json, say
from lesion_hub.errors import ConfigError
from lesion_hub.progress import progress_bar

if TYPE_CHECKING:
    from lesion_hub.app.static_page import StaticPage
    from lesion_hub.hub.space import PublishedSpace, SpacePlan

_STATIC = "The page in the visitor's browser"
RuntimeOption = Annotated[
    Path | None,
    typer.Option(
        "--runtime", help="Folder with ONNX Runtime Web's files; default: fetched once with npm.", rich_help_panel=_STATIC
    ),
]


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
    static: Annotated[
        bool,
        typer.Option("--static", help="Serve the page that computes in the visitor's own browser.", rich_help_panel=_STATIC),
    ] = False,
    runtime: RuntimeOption = None,
) -> None:
    """Serve the demo page on this machine. It keeps no image, and nothing leaves the machine.

    Without `--device` it runs on CUDA where there is one. With `--static` it serves files only, and the browser computes.

    Example: `lesion-hub serve --model dermoscopy-trio --port 7860`
    """
    if static:
        limits = (device, max_mb, max_megapixels, max_files, max_batch_mb, memory_mb, concurrency, queue_size)
        if any(value is not None for value in limits) or engine not in ("auto", "onnx-int8"):
            raise ConfigError(
                "--static serves files, and the browser computes: of the other options it takes --model, "
                "--revision, --registry, --host, --port, --runtime and --engine onnx-int8"
            )
        _serve_static(_only_one(model or [DEFAULT_MODEL]), revision, registry, engine, host, port, runtime)
        return
    if runtime is not None:
        raise ConfigError("--runtime is for the page that computes in the browser; add --static")
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


def _serve_static(
    model: str,
    revision: str | None,
    registry: str | None,
    engine: str,
    host: str | None,
    port: int | None,
    runtime: Path | None,
) -> None:
    """Write the page into a temporary folder and serve that until interrupted."""
    import tempfile

    from lesion_hub.app.serving import stop_when_terminated
    from lesion_hub.app.static_page import write_static_page
    from lesion_hub.app.static_server import address, file_server
    from lesion_hub.inference import from_pretrained

    stop_when_terminated()
    predictor = from_pretrained(model, revision=revision, registry=registry, engine=_written(engine))
    with tempfile.TemporaryDirectory(prefix="lesion-hub-") as scratch:
        folder = Path(scratch) / "page"
        with progress_bar("writing graphs") as progress:
            page = write_static_page(predictor, folder, runtime=runtime, progress=progress)
        with file_server(folder, host=host, port=port) as server:
            say(f"Serving {page.title} on {address(server)}; the browser computes ({_fetched(page)})")
            server.serve_forever()


def _fetched(page: StaticPage) -> str:
    return f"it fetches {page.graph_bytes / 1e6:.1f} MB of networks and {page.runtime_bytes / 1e6:.1f} MB of runtime once"


def _written(engine: str) -> str:
    """The engine to load a model with whose graphs are written: in float, or as its 8-bit file."""
    return "onnx-int8" if engine == "onnx-int8" else "torch"


def _only_one(models: list[str]) -> str:
    if len(models) != 1:
        raise ConfigError(f"{len(models)} models: a static page answers with one; an ensemble is one too")
    return models[0]


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
    sdk: Annotated[str, typer.Option("--sdk", help="gradio, which the Hub builds by itself, or docker.")] = "gradio",
    folder: Annotated[
        Path | None, typer.Option("--folder", help="A Space of your own, made from a copy of the packaged one.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the files into this new folder; send nothing.", show_default=False)
    ] = None,
    registry: RegistryOption = None,
    static: Annotated[
        bool,
        typer.Option("--static", help="A static Space: the visitor's own browser computes.", rich_help_panel=_STATIC),
    ] = False,
    runtime: RuntimeOption = None,
    engine: EngineOption = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and show it; write nothing.")] = False,
    json_: JsonOption = False,
) -> None:
    """Publish the demo page as a Space that answers with pinned versions of models.

    The package travels within the Space, whose build installs public packages alone. A model of the Hub is fetched by the
    Space in exactly that version; one of the local registry travels within the Space. A model without a version is pinned to
    its highest. Files that you added to the Space stay; the others are replaced. With `--static` the page holds its one
    model itself, runs on no machine of the Hub, and costs nothing.

    Example: `lesion-hub publish-space org/skin-demo --model org/dermoscopy-trio@v2.0.0`
    """
    from lesion_hub.hub.remote import quiet_downloads
    from lesion_hub.hub.space import plan_space, send_space

    if static and (folder is not None or hardware is not None or out is not None or sdk != "gradio"):
        raise ConfigError("--static is the packaged page on no hardware; leave out --folder, --hardware, --sdk and --out")
    if dry_run and out is not None:
        raise ConfigError("--dry-run writes nothing, and --out a folder; leave one of them out")
    if runtime is not None and not static:
        raise ConfigError("--runtime is for the page that computes in the browser; add --static")
    if engine not in (("auto", "onnx-int8") if static else ("auto",)):
        raise ConfigError("--engine onnx-int8 is for the page that computes in the browser, with --static; else leave it out")
    with quiet_downloads(json_):
        if static:
            from lesion_hub.app.static_page import publish_static_page

            options: dict[str, Any] = {"runtime": runtime, "private": private, "registry": registry, "dry_run": dry_run}
            options["engine"] = _written(engine)
            with progress_bar("writing graphs") as progress:
                done = publish_static_page(name, _only_one(model), progress=progress, **options)
        else:
            made_of: dict[str, Any] = {"folder": folder, "hardware": hardware, "sdk": sdk, "registry": registry}
            plan = plan_space(name, model, **made_of)
            if not json_:
                _show_plan(plan)
            if out is not None:
                plan.write(out)
            dry_run = dry_run or out is not None
            done = plan.as_published() if dry_run else send_space(plan, private=private, hardware=hardware)
    if json_:
        print_json(asdict(done))
    else:
        _say_published(done, dry_run, out)


def _say_published(done: PublishedSpace, dry_run: bool, out: Path | None) -> None:
    """Say what was published, or would be, and what is still to be done for it."""
    if done.sdk == "static":
        say(f"{len(done.files)} files, {done.bytes / 1e6:.1f} MB")
    verb = "would publish" if dry_run else "published" if done.changed else "already up to date:"
    say(f"{verb} {done.location} with {', '.join(done.models)}")
    if dry_run:
        say("\n".join(_by_folder(done.files)))
    if out is not None:
        say(f"wrote {out}; to see the page: pip install -r {out / 'requirements.txt'} && python {out / 'app.py'}")
    if done.needs_token:
        say(f"not public: {', '.join(done.needs_token)}; add HF_TOKEN, a token that may read them, to the Space's secrets")


def _show_plan(plan: SpacePlan) -> None:
    """Print how large the repo is, by what is in it, and what its build installs."""
    from lesion_hub.hub.space_build import is_for_cpu

    total, package, models = (
        sum(size for file, size in plan.sizes.items() if file.startswith(part)) / 1e6
        for part in ("", "lesion_hub/", "registry/")
    )
    say(f"repo: {len(plan.sizes)} files, {total:.1f} MB: the package {package:.1f}, models {models:.1f}")
    torch = "as its CPU build" if is_for_cpu(plan.hardware) else "with CUDA's libraries, several GB"
    say(f"build: {plan.sdk} on {plan.hardware}, {len(plan.requirements)} requirements and theirs, PyTorch {torch}")


def _by_folder(files: Iterable[str]) -> list[str]:
    """List the files, those of the package, and of each model that travels within the Space, in one line.

    >>> _by_folder(["app.py", "lesion_hub/score.py", "registry/a/v1.0.0/config.json", "registry/a/v1.0.0/plots/roc.png"])
    ['app.py', 'lesion_hub/ (1 files)', 'registry/a/v1.0.0/ (2 files)']
    """
    depths = {"lesion_hub": 1, "registry": 3}
    lines: dict[str, int] = {}
    for file in files:
        parts = file.split("/")
        depth = depths.get(parts[0], len(parts))
        place = "/".join(parts[:depth]) + "/" if len(parts) > depth else file
        lines[place] = lines.get(place, 0) + 1
    return [f"{place} ({count} files)" if place.endswith("/") else place for place, count in lines.items()]
