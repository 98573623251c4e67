"""The command that makes a model's probabilities and thresholds fit another clinic."""

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
    NearDuplicatesOption,
    ReadingOptions,
    RegistryOption,
    RevisionOption,
    SeenImagesOption,
    takes_data_options,
)
from lesion_hub.cli.output import print_json, print_table, say
from lesion_hub.progress import progress_bar


@takes_data_options
def recalibrate(
    model: ModelArgument,
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", help="New folder for the recalibrated model.", show_default=False)],
    split: Annotated[str, typer.Option("--split", help="Part of the data to fit on: train, val, test, or all.")] = "all",
    manifest: ManifestOption = None,
    margin: Annotated[
        float, typer.Option("--margin", help="How closely to know a sensitivity, for the number of lesions that takes.")
    ] = 0.05,
    near_duplicates: NearDuplicatesOption = False,
    training_data: SeenImagesOption = None,
    reading: ReadingOptions = ReadingOptions(),
    revision: RevisionOption = None,
    registry: RegistryOption = None,
    device: DeviceOption = "cpu",
    engine: EngineOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Refit temperature and operating points on a clinic's lesions that the model has not seen, as a new model folder.

    Example: `lesion-hub recalibrate dermoscopy-trio --data data/clinic --out runs/trio-clinic`
    """
    from lesion_hub.evaluation import recalibration

    with progress_bar("scoring images") as progress:
        done = recalibration.recalibrate(
            model,
            read_data(data, reading),
            out=out,
            revision=revision,
            registry=registry,
            device=device,
            engine=engine,
            progress=progress,
            split=split,
            manifest=manifest,
            margin=margin,
            near_duplicates=near_duplicates,
            training_data=training_data,
        )
    if json_:
        print_json({"folder": str(done.folder), "temperature": done.temperature, **done.section})
    else:
        _print_recalibration(done.folder, done.section)


def _print_recalibration(folder: Path, section: Any) -> None:
    from lesion_hub.hub.measures import UNDEFINED, interval, shown, words

    counts, effect = section["counts"], section["calibration"]
    if not section["overlap"]["checked"]:
        say("the model does not say which images it was trained on: overlap not checked", err=True, colour="yellow")
    malignant = f", {counts['malignant_lesions']} of them malignant" if "malignant_lesions" in counts else ""
    say(f"{counts['images']} images of {counts['lesions']} lesions{malignant}: {section['data']['selection']}")
    say(f"after: each lesion judged by what was fitted on others, in {section['folds']} folds; 95 % intervals")
    rows = [(words(name), interval(effect[f"{name}_before"]), interval(effect[f"{name}_after"])) for name in ("nll", "ece")]
    print_table(("measure", "before", "after"), rows)
    if section["points"]:
        print_table(
            ("sensitivity at", "promised", "before", "after", f"malignant lesions for +-{section['margin']:g}"),
            (
                (
                    name,
                    shown(point["promised_sensitivity"]),
                    interval(point["before"]["sensitivity"]) if point["before"] else UNDEFINED,
                    interval(point["after"]["sensitivity"]),
                    f"{point['malignant_lesions_needed']} (here {counts['malignant_lesions']})",
                )
                for name, point in section["points"].items()
            ),
        )
    say(f"temperature {effect['temperature']:.3f}; model folder: {folder}")
