"""The commands of the input gate: fit one to a model, and measure what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lesion_hub.cli.data import read_data
from lesion_hub.cli.options import (
    DataOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    ManifestOption,
    ModelArgument,
    ReadingOptions,
    RegistryOption,
    RevisionOption,
    RunArgument,
    takes_data_options,
)
from lesion_hub.cli.output import print_facts, print_json, print_table, say
from lesion_hub.errors import ConfigError
from lesion_hub.progress import progress_bar

gate = typer.Typer(no_args_is_help=True, help="The input gate: is an image one that the model was made for?")

OutliersOption = Annotated[
    Path | None, typer.Option("--outliers", help="Folder of pictures without a lesion: photographs, textures, screenshots.")
]


@gate.command("fit")
@takes_data_options
def fit(
    run: RunArgument,
    data: DataOption,
    outliers: OutliersOption = None,
    count: Annotated[int, typer.Option("--count", help="Training images to fit on, with as many drawn outliers.")] = 3000,
    manifest: ManifestOption = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    reading: ReadingOptions = ReadingOptions(),
    device: DeviceOption = "cpu",
    engine: EngineOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Fit an input gate to a model folder on its training data, and write it, its figures and the card into the folder.

    Pictures without a lesion are drawn by a program; your own, of the kind that people send by mistake, make it better.

    Example: `lesion-hub gate fit runs/mine --data data/ham10000 --outliers data/photos`
    """
    from lesion_hub.evaluation.gate_fit import fit_gate_of

    with progress_bar("looking at images") as progress:
        fitted = fit_gate_of(
            run,
            read_data(data, reading),
            outliers=outliers,
            manifest=manifest,
            device=device,
            engine=engine,
            progress=progress,
            images=count,
            seed=seed,
        )
    if json_:
        print_json({"folder": str(run), **fitted.section})
        return
    held = fitted.section["held_out"]
    print_facts(
        {
            "folder": str(run),
            "fitted on": f"{fitted.section['images']} images, {fitted.section['drawn']} drawn outliers, "
            f"{fitted.section['outliers']} of the folder",
            "refuses below": f"{fitted.refuse_below:.2f}",
            "accepts from": f"{fitted.accept_from:.2f}",
            "AUROC": f"{held['auroc']:.4f}",
        }
    )
    rows = [
        ("images held out", held["images"], held["refused"]),
        ("drawn outliers held out", held["drawn"], held["drawn_refused"]),
    ]
    if held["outliers"]:
        rows.append(("outliers of the folder held out", held["outliers"], held["outliers_refused"]))
    print_table(("", "images", "refused"), ((what, count, f"{share:.1%}") for what, count, share in rows))


@gate.command("check")
@takes_data_options
def check(
    model: ModelArgument,
    data: Annotated[str | None, typer.Option("--data", help="Images that should be in scope: folder, csv, Hub id.")] = None,
    split: Annotated[str, typer.Option("--split", help="Part of --data: train, val, test, or all.")] = "all",
    outliers: OutliersOption = None,
    manifest: ManifestOption = None,
    record: Annotated[bool, typer.Option("--record", help="Put the results into the model folder's metrics.json.")] = False,
    reading: ReadingOptions = ReadingOptions(),
    revision: RevisionOption = None,
    registry: RegistryOption = None,
    device: DeviceOption = "cpu",
    engine: EngineOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Measure what a model's input gate lets through, of images that should pass and of pictures that should not.

    Example: `lesion-hub gate check dermoscopy-trio --data data/ham10000 --split test --outliers data/photos`
    """
    from lesion_hub.data.scan import image_sources
    from lesion_hub.evaluation.gate_fit import check_gate, count_verdicts, pictures_in, record_check, scope_auroc
    from lesion_hub.evaluation.overlap import choose_rows, data_name, training_records
    from lesion_hub.hub.store import resolve
    from lesion_hub.inference import from_pretrained

    if data is None and outliers is None:
        raise ConfigError("there is nothing to check; name images with --data, pictures of other things with --outliers")
    reading.refuse_without(data, "--data")
    if record and not Path(model).is_dir():
        raise ConfigError(f"{model}: --record writes into a model folder; pull the model into one first")
    predictor = from_pretrained(model, revision=revision, registry=registry, device=device, engine=engine)
    found: dict[str, Any] = {}
    names: dict[str, str] = {}
    with progress_bar("looking at images") as progress:
        if data is not None:
            source = read_data(data, reading)
            records = training_records(resolve(model, revision, registry=registry), registry=registry)
            chosen = choose_rows(source, split, records, manifest)
            found["data"] = check_gate(predictor, image_sources(source.dataset.select(chosen.rows)), progress=progress)
            names["data"] = f"{data_name(source)}, {chosen.how}"
        if outliers is not None:
            found["outliers"] = check_gate(predictor, pictures_in(outliers), progress=progress)
            names["outliers"] = f"pictures of other things in {outliers.name}"
    measured = {what: {"name": names[what], **count_verdicts(scopes)} for what, scopes in found.items()}
    auroc = scope_auroc(found["data"], found["outliers"]) if len(found) == 2 else None
    if record:
        record_check(model, list(measured.values()), auroc)
    if json_:
        print_json({"model": predictor.name, "revision": predictor.revision, **measured, "auroc": auroc})
        return
    rows_shown = (
        (row["name"], row["images"], f"{row['in_scope']:.1%}", f"{row['unsure']:.1%}", f"{row['out_of_scope']:.1%}")
        for row in measured.values()
    )
    print_table(("pictures", "images", "in scope", "unsure", "out of scope"), rows_shown)
    if auroc is not None:
        say(f"AUROC of the score: {auroc:.4f}")
