"""Commands that use a model: predict, score in bulk, make ensembles, check heat maps, export."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lesion_hub import DEFAULT_MODEL
from lesion_hub.cli.data import read_data
from lesion_hub.cli.options import (
    AbstainOption,
    CostOption,
    CoverageOption,
    DataArgument,
    DataOption,
    DecideOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    ModelArgument,
    ModelOption,
    PriorOption,
    ReadingOptions,
    RegistryOption,
    RevisionOption,
    ThreadsOption,
    ViewsOption,
    rule_options,
    takes_data_options,
)
from lesion_hub.cli.output import print_facts, print_json, print_table, say
from lesion_hub.errors import ConfigError, ImageError
from lesion_hub.files import write_bytes
from lesion_hub.progress import progress_bar

if TYPE_CHECKING:
    from lesion_hub.inference import Prediction, Predictor
    from lesion_hub.inference.quantization import QuantizedReport


def _load(
    name: str,
    revision: str | None,
    registry: str | None,
    device: str = "cpu",
    threads: int | None = None,
    engine: str = "torch",
) -> Predictor:
    import torch

    from lesion_hub.inference import from_pretrained

    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads {threads} is too few; give 1 or more")
        torch.set_num_threads(threads)
    return from_pretrained(name, revision=revision, registry=registry, device=device, engine=engine)


def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    model: ModelOption = DEFAULT_MODEL,
    revision: RevisionOption = None,
    explain: Annotated[str | None, typer.Option("--explain", help="Heat map: gradcam, hirescam, occlusion, …")] = None,
    target: Annotated[str | None, typer.Option("--target", help="Label the map is about; default: the most probable.")] = None,
    overlay: Annotated[Path | None, typer.Option("--overlay", help="Folder for the images under their heat maps.")] = None,
    case: Annotated[bool, typer.Option("--case", help="The images show one lesion: give one answer.")] = False,
    top: Annotated[int, typer.Option("--top", help="Labels to show.")] = 3,
    coverage: CoverageOption = 0.9,
    decide: DecideOption = None,
    cost: CostOption = None,
    prior: PriorOption = None,
    abstain: AbstainOption = None,
    tta: ViewsOption = 1,
    device: DeviceOption = "cpu",
    engine: EngineOption = "auto",
    threads: ThreadsOption = None,
    registry: RegistryOption = None,
    json_: JsonOption = False,
) -> None:
    """Say what a model sees in images. Exit status 1 where one of them cannot be read; the others are answered all the same.

    Example: `lesion-hub predict mole.jpg --explain gradcam --overlay out/`
    """
    from lesion_hub.app.words import NOTICE
    from lesion_hub.data.images import utf8_name

    if overlay is not None:
        explain = explain or "gradcam"
    predictor = _load(model, revision, registry, device, threads, engine)
    options: dict[str, Any] = {"explain": explain, "target": target, "tta": tta, "top": top}
    options |= rule_options(coverage, decide, cost, prior, abstain)
    overlays = _overlay_files(overlay, images)
    if case:
        whole = predictor.predict_case(images, **options)
        written = [_write_overlay(file, one) for file, one in zip(overlays, whole.images, strict=True)]
        shown = [{"images": [str(path) for path in images], **whole.to_dict(), "overlays": written}]
        told: dict[str, Any] = {**shown[0], "notice": NOTICE}
    else:
        shown = []
        with progress_bar("predicting") as progress:
            answers = predictor.try_each(images, progress=progress, **options)
            for path, file, one in zip(images, overlays, answers, strict=True):
                if isinstance(one, ImageError):
                    shown.append({"image": utf8_name(str(path)), "error": str(one)})
                else:
                    facts = {"image": utf8_name(str(path)), **one.to_dict(), "overlay": _write_overlay(file, one)}
                    shown.append(facts)
        told = {"model": predictor.name, "revision": predictor.revision, "notice": NOTICE, "predictions": shown}
    broken = [facts["error"] for facts in shown if "error" in facts]
    if json_:
        print_json(told)
    else:
        _print_predictions([facts for facts in shown if "error" not in facts])
    if broken:
        raise ImageError("; ".join(broken))


def _print_predictions(shown: list[dict[str, Any]]) -> None:
    from lesion_hub.app.words import NOTICE
    from lesion_hub.hub.measures import NOT_FITTED

    for facts in shown:
        malignancy, apart, named, scope = facts["malignancy"], facts["disagreement"], facts["label_set"], facts["scope"]
        by_rule = facts["decided_by"] != "most_probable"
        print_facts(
            {
                "image": facts.get("image") or facts.get("images"),
                "scope": NOT_FITTED if scope is None else f"{scope['verdict']} (score {scope['score']:.2f})",
                "abstains": "the model abstains: it is too unsure of this image" if facts["abstains"] else None,
                "label set": NOT_FITTED if named is None else f"{named['words']} ({named['coverage']:.0%} of lesions)",
                "no promise for": None if named is None else ", ".join(named["unpromised"]),
                "decided": f"{facts['label']} ({facts['decided_by']})" if by_rule else None,
                "most probable": ", ".join(f"{row['label']} {row['probability']:.1%}" for row in facts["top"]),
                "malignant": None if malignancy is None else f"{malignancy:.1%}",
                "reaches": ", ".join(name for name, reached in facts["decisions"].items() if reached) or None,
                "disagreement": None if apart is None else f"{apart:.2f} of 1",
                "doubts": ", ".join((facts["quality"] or {}).get("flags", ())),
                "overlay": facts.get("overlay") or [path for path in facts.get("overlays", ()) if path],
            }
        )
        say("")
    if shown:
        say(NOTICE, err=True)


def _overlay_files(folder: Path | None, images: list[Path]) -> list[Path | None]:
    """Name each image's overlay after its stem, a stem that repeats with a number; without a folder there are none."""
    if folder is None:
        return [None] * len(images)
    names: list[str] = []
    for image in images:
        name, number = image.stem, 1
        while name in names:
            number += 1
            name = f"{image.stem}_{number}"
        names.append(name)
    return [folder / f"{name}_heat.png" for name in names]


def _write_overlay(file: Path | None, prediction: Prediction) -> str | None:
    if file is None:
        return None
    stream = BytesIO()
    prediction.overlay().save(stream, "PNG")
    write_bytes(file, stream.getvalue())
    return str(file)


@takes_data_options
def score(
    data: DataArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder for the Parquet shards; continued where it stands.")],
    model: ModelOption = DEFAULT_MODEL,
    revision: RevisionOption = None,
    streaming: Annotated[bool, typer.Option("--streaming", help="Read a Hub data set as a stream.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images in memory at a time.")] = 32,
    shard_size: Annotated[int, typer.Option("--shard-size", help="Rows in a shard.")] = 1024,
    coverage: CoverageOption = 0.9,
    decide: DecideOption = None,
    cost: CostOption = None,
    prior: PriorOption = None,
    abstain: AbstainOption = None,
    tta: ViewsOption = 1,
    device: DeviceOption = "cpu",
    engine: EngineOption = "auto",
    threads: ThreadsOption = None,
    reading: ReadingOptions = ReadingOptions(),
    registry: RegistryOption = None,
    json_: JsonOption = False,
) -> None:
    """Score any number of images into Parquet shards. Run again after an interruption, it goes on where it stood.

    A folder is walked for images; with one of the options that say how it is read, its rows bring their labels along.
    Rows that cannot be used are left out.

    For several processes: `accelerate launch -m lesion_hub.score DATA --model M --out DIR`.

    Example: `lesion-hub score images/ --model dermoscopy-trio --out scores/`
    """
    from lesion_hub.config import validated
    from lesion_hub.inference.bulk import ScoreOptions, score_in_bulk
    from lesion_hub.inference.rows import open_rows

    sizes = {"batch_size": batch_size, "shard_size": shard_size, "tta": tta}
    options = validated(ScoreOptions, {**sizes, **rule_options(coverage, decide, cost, prior, abstain)}, "score")
    rows = open_rows(data, streaming=streaming, **reading.keywords())
    predictor = _load(model, revision, registry, device, threads, engine)
    with progress_bar("scoring") as progress:
        report = score_in_bulk(predictor, rows, out, options, progress=progress).to_dict()
    print_facts(report, as_json=json_)


@takes_data_options
def export(
    name: ModelArgument,
    out: Annotated[Path | None, typer.Option("--out", help="File to write.", show_default=False)] = None,
    format_: Annotated[str, typer.Option("--format", help="onnx.")] = "onnx",
    precision: Annotated[
        str, typer.Option("--precision", help="float32; or int8: fewer bits, kept only if it answers alike and faster.")
    ] = "float32",
    data: Annotated[str | None, typer.Option("--data", help="Labelled data for int8, judged on their validation part.")] = None,
    recall_drop: Annotated[
        float, typer.Option("--recall-drop", help="Most sensitivity that a class may lose in 8 bits.")
    ] = 0.01,
    agreement: Annotated[float, typer.Option("--agreement", help="Least share of answers in 8 bits that stay.")] = 0.98,
    record: Annotated[
        bool, typer.Option("--record", help="Put the 8-bit file into the model folder, and write its card anew.")
    ] = False,
    quantize: Annotated[str | None, typer.Option("--quantize", help="Labelled data: also write an 8-bit file.")] = None,
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="From an image's pixels, of any size, to logits and heat maps; a file per member (--out: folder).",
        ),
    ] = False,
    reading: ReadingOptions = ReadingOptions(),
    revision: RevisionOption = None,
    registry: RegistryOption = None,
    json_: JsonOption = False,
) -> None:
    """Export a model; the file is only kept if it says what the model says.

    Example: `lesion-hub export dermoscopy-lite0 --format onnx --out lite0.onnx`
    """
    from lesion_hub.inference.export import ExportReport, export_onnx, export_pixel_graphs

    if format_ != "onnx":
        raise ConfigError(f"format {format_!r} is not known; use onnx")
    if precision not in ("float32", "int8"):
        raise ConfigError(f"precision {precision!r} is not known; use float32 or int8")
    reduced = precision == "int8"
    if reduced != (data is not None):
        raise ConfigError("--precision int8 is judged on labelled data, and nothing else is: give both it and --data")
    if reduced and quantize is not None:
        raise ConfigError("--quantize is --precision int8 beside the float file; give one of them")
    if record and not reduced:
        raise ConfigError("--record puts an 8-bit file into the model folder; add --precision int8 --data")
    if record == (out is not None):
        raise ConfigError("say where the file goes: --out FILE, or, in 8 bits, --record")
    reading.refuse_without(data or quantize, "--data")
    labelled, reports = data or quantize, list[ExportReport]()
    if with_preprocessing and (out is None or labelled is not None):
        raise ConfigError("--with-preprocessing writes float files: give --out, and neither --precision int8 nor --quantize")
    if with_preprocessing and out is not None:
        reports += export_pixel_graphs(_load(name, revision, registry), out)
    elif not reduced and out is not None:
        reports.append(export_onnx(_load(name, revision, registry), out))
    if labelled is not None:
        from lesion_hub.evaluation import precision as reduced_precision
        from lesion_hub.hub.card import write_card

        source = read_data(labelled, reading)
        limits: dict[str, Any] = {"sensitivity_loss": recall_drop, "agreement": agreement, "registry": registry}
        with progress_bar("trying configurations") as progress:
            if out is None:
                done = reduced_precision.quantize_recorded(name, source, progress=progress, **limits)
                write_card(name)
            else:
                small = out if reduced else out.with_name(f"{out.stem}.int8{out.suffix}")
                done = reduced_precision.quantize(name, source, small, revision=revision, progress=progress, **limits)
        reports.append(done)
    if json_:
        print_json({"files": [report.to_dict() for report in reports]})
        return
    rows_shown = ((r.path, r.precision, f"{r.bytes / 1e6:.1f} MB", f"{r.difference:.1e}") for r in reports)
    difference = f"largest difference of a {'probability' if with_preprocessing else 'logit'}"
    print_table(("file", "precision", "size", difference), rows_shown)
    if labelled is not None:
        _print_gate(done)


def _print_gate(done: QuantizedReport) -> None:
    gate = done.kept.gate
    say(f"kept: {done.kept.configuration}, number {len(done.tried)} of those tried")
    say(f"{gate.agreement:.1%} of {gate.images} answers stay; a probability changes by {gate.largest_change:.3f} at most")
    rows = (
        (name, count.images, f"{count.before / count.images:.3f}", f"{count.after / count.images:.3f}")
        for name, count in gate.classes.items()
    )
    print_table(("label", "images", "sensitivity in float", "in 8 bits"), rows)
    print_table(("setting", "times as fast as the float file"), ((k, f"{v:.2f}") for k, v in done.kept.speedup.items()))


# ------------------------------------------------------------------------------------------------ ensembles

ensemble = typer.Typer(no_args_is_help=True, help="Make ensembles of published models.")


@ensemble.command("create")
@takes_data_options
def create(
    members: Annotated[list[str], typer.Argument(help="Published models, NAME or NAME@v1.0.0.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="New folder for the ensemble.", show_default=False)],
    weights: Annotated[str | None, typer.Option("--weights", help="One each, summing to 1: 0.3,0.3,0.4.")] = None,
    fit: Annotated[
        str | None, typer.Option("--fit", help="Data to fit weights, temperature and thresholds on: their validation part.")
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="Part of --fit's data: val, by the members' own splits; all, of new data.")
    ] = "val",
    combine: Annotated[str, typer.Option("--combine", help="Mean of probabilities, or of logits.")] = "probabilities",
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Put the members' weights in, so that transformers and timm load it too.")
    ] = False,
    reading: ReadingOptions = ReadingOptions(),
    registry: RegistryOption = None,
    json_: JsonOption = False,
) -> None:
    """Combine published models into one, with given or fitted weights. Without either they weigh the same.

    It answers in the label space that `--space` names, else in the finest that all share; `--fit`'s data are mapped into that.

    Example: `lesion-hub ensemble create lite0 lite1 lite2 --weights 0.3,0.3,0.4 --out trio`
    """
    from lesion_hub.evaluation.ensemble_fit import fit_on_validation
    from lesion_hub.hub.measures import rules_in_words
    from lesion_hub.inference.ensemble import check_ensemble, create_ensemble, pin_member
    from lesion_hub.taxonomy import label_space

    if combine not in ("probabilities", "logits"):
        raise ConfigError(f"combine {combine!r} is not known; use probabilities or logits")
    try:
        shares = None if weights is None else [float(word) for word in weights.replace(",", " ").split()]
    except ValueError:
        raise ConfigError(f"weights {weights!r} are no numbers; for example --weights 0.3,0.3,0.4") from None
    reading.refuse_without(fit, "--fit", but=("space",))
    pinned = [pin_member(name, registry=registry) for name in members]
    mode: Literal["probabilities", "logits"] = "logits" if combine == "logits" else "probabilities"
    space = reading.space
    if fit is None:
        fitted, made = None, create_ensemble(out, pinned, weights=shares, combine=mode, space=space, bundle=bundle)
    else:
        check_ensemble(out.expanduser(), pinned, weights=shares, fit=True, bundle=bundle)
        data = read_data(fit, replace(reading, space=None, allow_missing=True))
        target = label_space(space) if space else None
        with progress_bar("scoring the validation data") as progress:
            fitted = fit_on_validation(pinned, data, space=target, combine=mode, split=split, progress=progress)
        for name in fitted.unrecorded:
            say(f"{name} does not say which images it was trained on: not checked", err=True, colour="yellow")
        chosen: dict[str, Any] = {"fit": fitted.fit, "operating_points": fitted.points, "rules": fitted.rules}
        made = create_ensemble(out, pinned, weights=shares, combine=mode, space=space, bundle=bundle, **chosen)
    facts: dict[str, Any] = {
        "folder": str(out),
        "label space": made.label_space,
        "members": {f"{m.name}@{m.revision}": w for m, w in zip(made.members, made.weights, strict=True)},
        "temperature": made.temperature,
        "operating points": {name: point.threshold for name, point in made.operating_points.items()},
        "rules": rules_in_words(made.rules) if fitted else None,
        "fit": {"selection": fitted.selection, **fitted.fit.to_dict()} if fitted else None,
    }
    print_facts(facts, as_json=json_)


# ------------------------------------------------------------------------------------------------ attribution

attribution = typer.Typer(no_args_is_help=True, help="Heat maps: the methods, and whether they can be believed.")


@attribution.command("methods")
def methods(json_: JsonOption = False) -> None:
    """List the methods, what each costs and when to use it.

    Example: `lesion-hub attribution methods`
    """
    from lesion_hub.inference.attribution import METHODS

    columns = ("name", "title", "cost", "resolution", "use")
    rows = [{column: getattr(method, column) for column in columns} for method in METHODS.values()]
    if json_:
        print_json({"methods": rows})
    else:
        print_table(columns, (tuple(row.values()) for row in rows))


@attribution.command("check")
@takes_data_options
def check(
    name: ModelArgument,
    data: DataOption,
    method: Annotated[list[str] | None, typer.Option("--method", help="Method to check; repeatable.")] = None,
    count: Annotated[int, typer.Option("--count", help="Images to check on, drawn at random.")] = 32,
    stages: Annotated[int, typer.Option("--stages", help="Steps of the randomisation check; 0 leaves it out.")] = 4,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    record: Annotated[bool, typer.Option("--record", help="Put the results into the model folder's metrics.json.")] = False,
    revision: RevisionOption = None,
    device: DeviceOption = "cpu",
    engine: EngineOption = "auto",
    threads: ThreadsOption = None,
    reading: ReadingOptions = ReadingOptions(),
    registry: RegistryOption = None,
    json_: JsonOption = False,
) -> None:
    """Measure whether heat maps show what the model goes by: insertion, deletion, infidelity, sensitivity, randomisation.

    A folder is walked for images; where it has a folder of masks, the heat within the lesions is measured too.

    Example: `lesion-hub attribution check runs/x --data demo/data --method gradcam`
    """
    from lesion_hub.config import validated
    from lesion_hub.inference import faithfulness

    if [str(folder).isdigit() and not folder.exists() for folder in reading.images or ()] == [True]:  # as version 1.0 had it
        count, reading = int(str((reading.images or [])[0])), replace(reading, images=None)
        say(f"--images names folders; the number of images is now --count {count}", colour="yellow", err=True)
    if record and not Path(name).is_dir():
        raise ConfigError(f"{name}: --record writes into a model folder; pull the model into one first")
    chosen = {"methods": tuple(method or ("gradcam",)), "stages": stages, "seed": seed}
    options = validated(faithfulness.CheckOptions, chosen, "attribution check")
    predictor = _load(name, revision, registry, device, threads, engine)
    check_images = faithfulness.check_images_of(data, count, seed, **reading.keywords())
    with progress_bar("checking") as progress:
        results = faithfulness.check_maps(predictor, check_images, options, progress)
    if record:
        faithfulness.record_check(Path(name), results)
    if json_:
        print_json(results)
        return
    measures = tuple(results["measures"])
    headings = (measure.replace("_", " ") for measure in measures)
    print_table(("map", *headings), ((row, *(_shown(found[m]) for m in measures)) for row, found in results["maps"].items()))
    for row, found in results["randomisation"].items():
        steps = ", ".join(f"{s['randomised']:.0%} {_shown(s['similarity'])}" for s in found)
        say(f"{row}: similarity to the trained map with this share of the layers random: {steps}")


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
