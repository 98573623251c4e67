"""Commands that measure models: evaluate, compare, calibrate, card (recalibrate is in a file of its own)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lesion_hub.cli.data import read_data
from lesion_hub.cli.options import (
    AsSpaceOption,
    CostOption,
    DataOption,
    DecideOption,
    DeviceOption,
    EngineOption,
    ForceOption,
    JsonOption,
    ManifestOption,
    MirroredOption,
    ModelOption,
    NearDuplicatesOption,
    PartOption,
    PriorOption,
    ReadingOptions,
    RegistryOption,
    RevisionOption,
    RunArgument,
    SeenImagesOption,
    decision_asked,
    prevalences_of,
    takes_data_options,
)
from lesion_hub.cli.output import print_facts, print_json, print_table, say
from lesion_hub.errors import ConfigError
from lesion_hub.progress import progress_bar


@takes_data_options
def evaluate(
    model: ModelOption,
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", help="Folder for predictions, metrics, plots and report.", show_default=False)],
    split: PartOption = "test",
    tta: MirroredOption = False,
    as_: AsSpaceOption = None,
    revision: RevisionOption = None,
    manifest: ManifestOption = None,
    near_duplicates: NearDuplicatesOption = False,
    training_data: SeenImagesOption = None,
    robustness: Annotated[bool, typer.Option("--robustness", help="Also score disturbed images.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Put the results into the model folder, and write its card anew.")
    ] = False,
    external: Annotated[
        str | None, typer.Option("--external", help="Name of a set measured elsewhere, for the card's table of those.")
    ] = None,
    data_licence: Annotated[str | None, typer.Option("--data-licence", help="Licence of the --external set.")] = None,
    origin: Annotated[
        str | None, typer.Option("--origin", help="Where the --external set comes from; default: its reference, where known.")
    ] = None,
    note: Annotated[str | None, typer.Option("--note", help="What else to know of the --external set.")] = None,
    decide: DecideOption = None,
    cost: CostOption = None,
    prior: PriorOption = None,
    force: ForceOption = False,
    reading: ReadingOptions = ReadingOptions(),
    registry: RegistryOption = None,
    device: DeviceOption = "cpu",
    engine: EngineOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Measure a model or an ensemble on a data set: predictions, numbers with intervals, plots and a report.

    Example: `lesion-hub evaluate --model runs/ham10000_lite0 --data data/ham10000 --out evaluation/`
    """
    from lesion_hub.evaluation import run
    from lesion_hub.hub.card import write_card

    if external is None and (data_licence or origin or note):
        raise ConfigError("--data-licence, --origin and --note are of a set measured elsewhere; name it with --external")
    with progress_bar("scoring images") as progress:
        done = run.evaluate(
            model,
            read_data(data, reading),
            out=out,
            revision=revision,
            registry=registry,
            device=device,
            engine=engine,
            progress=progress,
            split=split,
            tta=tta,
            as_space=as_,
            manifest=manifest,
            near_duplicates=near_duplicates,
            training_data=training_data,
            stress=robustness,
            force=force,
            external=external,
            licence=data_licence,
            origin=origin,
            note=note,
            decide=decision_asked(decide, cost),
            prior=prevalences_of(prior),
        )
    if record:
        run.record(done)
        write_card(done.model.folder)
    if json_:
        print_json({"out": str(done.out), "report": str(done.report), **done.results})
        return
    _print_section(done.section)
    say(f"report: {done.report}")


@takes_data_options
def compare(
    first: Annotated[str, typer.Argument(help="Model: name, name@version, or folder.", show_default=False)],
    second: Annotated[str, typer.Argument(help="The model to compare it with.", show_default=False)],
    data: DataOption,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for comparison.json.")] = None,
    split: PartOption = "test",
    tta: MirroredOption = False,
    as_: AsSpaceOption = None,
    manifest: ManifestOption = None,
    force: ForceOption = False,
    reading: ReadingOptions = ReadingOptions(),
    registry: RegistryOption = None,
    device: DeviceOption = "cpu",
    engine: EngineOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Compare two models on the same images: paired differences with intervals, and McNemar's test.

    Example: `lesion-hub compare runs/a runs/b --data data/ham10000`
    """
    from lesion_hub.evaluation import comparison

    with progress_bar("scoring images") as progress:
        done = comparison.compare(
            first,
            second,
            read_data(data, reading),
            out=out,
            registry=registry,
            device=device,
            engine=engine,
            progress=progress,
            split=split,
            tta=tta,
            as_space=as_,
            manifest=manifest,
            force=force,
        )
    if json_:
        print_json(done.to_dict())
        return
    _print_comparison(done.to_dict())


@takes_data_options
def calibrate(
    run: RunArgument,
    data: Annotated[
        str | None, typer.Option("--data", help="Data set with the validation part, where the run kept no predictions.")
    ] = None,
    rules_anew: Annotated[
        bool,
        typer.Option("--rules-anew", help="Fit the rules that it has anew, say after its input gate; no probability changes."),
    ] = False,
    manifest: ManifestOption = None,
    reading: ReadingOptions = ReadingOptions(),
    registry: RegistryOption = None,
    engine: EngineOption = "auto",
    json_: JsonOption = False,
) -> None:
    """Fit what a run or an ensemble lacks on validation: temperature, operating points, label sets, decisions, abstention.

    Example: `lesion-hub calibrate runs/trio --data data/ham10000`
    """
    from lesion_hub.evaluation.calibration import calibrate_run
    from lesion_hub.hub.measures import rules_in_words

    reading.refuse_without(data, "--data")
    source = None if data is None else read_data(data, reading)
    with progress_bar("scoring images") as progress:
        done = calibrate_run(
            run,
            source,
            rules_anew=rules_anew,
            manifest=manifest,
            registry=registry,
            engine=engine,
            progress=progress,
        )
    facts = {
        **(done.result.to_dict() if done.result else {"temperature": "kept"}),
        "operating_points": {name: point.threshold for name, point in done.points.items()},
    }
    if json_:
        print_json({"folder": str(done.folder), **facts, "rules": done.rules.model_dump(mode="json", exclude_none=True)})
    else:
        print_facts({**facts, **rules_in_words(done.rules)})


def card(
    run: RunArgument,
    check: Annotated[bool, typer.Option("--check", help="Only check the card that is there.")] = False,
    name: Annotated[str | None, typer.Option("--name", help="What it will be loaded as: org/name or a registry name.")] = None,
    licence: Annotated[str | None, typer.Option("--licence", help="Where the training data are not recorded.")] = None,
    training_data: Annotated[
        str | None, typer.Option("--training-data", help="In a few words, where it is not recorded; needs --licence.")
    ] = None,
) -> None:
    """Write the model card of a folder from its files alone, or check that every number in it is theirs.

    Example: `lesion-hub card runs/ham10000_lite0 --check`
    """
    from lesion_hub.hub.card import write_card
    from lesion_hub.hub.card_check import check_card

    if training_data is not None:
        from lesion_hub.hub.trained_elsewhere import record_training_data  # loads torch, which no card needs

        if check or licence is None:
            raise ConfigError("--training-data is recorded with their --licence, and not by --check")
        record_training_data(run, training_data, licence)
    path = None if check else write_card(run, name=name, licence=licence)
    check_card(run)
    say(f"{path}: written and checked" if path else f"{run}: the card's numbers, sections and wording hold")


def _print_section(section: Any) -> None:
    from lesion_hub.hub.measures import COMMAND_HEADLINES, interval, words

    data = section["data"]
    if section["overlap"]["forced"]:
        say("forced: the model was made with some of these images; these numbers say nothing", colour="red", err=True)
    elif not section["overlap"]["checked"]:
        say("the model does not say which images it was trained on: overlap not checked", colour="yellow", err=True)
    say(f"{data['images']} images of {data['groups']} lesions or patients: {data['selection']}")
    known = [name for name in COMMAND_HEADLINES if name in section["intervals"]]
    print_table(("measure", "value (95 % interval)"), ((words(name), interval(section["intervals"][name])) for name in known))
    _print_rules(section)


def _print_rules(section: Any) -> None:
    from lesion_hub.hub.measures import interval, words

    rows = (
        (words(rule), *(interval(found["intervals"][name]) for name in ("balanced_accuracy", "accuracy")))
        for rule, found in section["decisions"].items()
    )
    print_table(("decided by", "balanced accuracy", "accuracy"), rows)
    if "gate" in section:
        shares = (f"{words(name)} {interval(section['gate'][name])}" for name in ("in_scope", "unsure", "out_of_scope"))
        say(f"input gate: {', '.join(shares)}")
    for found in section.get("label_sets", {}).get("coverages", {}).values():
        held, size = interval(found["coverage"]), interval(found["size"], 2)
        say(f"label sets promised to hold the true label in {found['promised']:.0%}: {held}; labels in a set: {size}")
    for found in section.get("abstention", {}).get("errors", {}).values():
        left, error = interval(found["answered"]), interval(found["error"])
        say(f"abstaining for an error of {found['stated']:.0%}: answers {left}, wrong in {error}")


def _print_comparison(found: dict[str, Any]) -> None:
    from lesion_hub.hub.measures import interval, words

    say(f"{found['first']} less {found['second']}: {found['images']} images of {found['groups']} lesions or patients")
    rows = ((words(name), interval(value)) for name, value in found["differences"].items())
    print_table(("measure", "difference (95 % interval)"), rows)
    test = found["mcnemar"]
    say(
        f"right alone: {found['first']} on {test['only_first']} images, {found['second']} on {test['only_second']}; "
        f"McNemar p = {test['p_value']:.3g} by image, {test['by_lesion']['p_value']:.3g} by lesion"
    )
