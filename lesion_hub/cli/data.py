"""Commands about data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lesion_hub.cli.options import DataArgument, JsonOption, ReadingOptions, WorkersOption, takes_data_options
from lesion_hub.cli.output import print_facts, print_json, print_table, say
from lesion_hub.errors import DataError
from lesion_hub.progress import progress_bar

if TYPE_CHECKING:
    from lesion_hub.data import ReadResult

app = typer.Typer(no_args_is_help=True, help="Read, audit, split, cache, shard and generate data sets.")


def read_data(path: str, reading: ReadingOptions, *, split: str | None = None) -> ReadResult:
    """Read a data set as the options of the command line say, without the progress bars of the datasets library."""
    import datasets

    from lesion_hub.data import read

    given = reading.keywords()
    datasets.disable_progress_bars()
    return read(path, split=split, **given)


@app.command()
@takes_data_options
def show(
    path: DataArgument,
    split: Annotated[str | None, typer.Option("--split", help="Keep train, val or test alone.")] = None,
    reading: ReadingOptions = ReadingOptions(),
    json_: JsonOption = False,
) -> None:
    """Say what a data set holds: images, lesions, patients, what its labels were taken for, and what is wrong with it.

    Exit status 1 where rows cannot be used, unless `--allow-missing` leaves them out.

    Example: `lesion-hub data show data/ham10000`
    """
    from lesion_hub.data import summarise

    result = read_data(path, replace(reading, allow_missing=True), split=split)
    summary = summarise(result)
    if json_:
        print_json(summary)
    else:
        _print_summary(summary)
        for finding in (*result.report.problems, *result.report.notes) if reading.allow_missing else result.report.notes:
            say(f"left out: {finding}", err=True)
        for proposal in result.report.proposals:
            say(f"proposed: {proposal}", err=True)
    result.report.raise_unless(reading.allow_missing)


def _print_summary(summary: dict[str, Any]) -> None:
    groups = summary["groups"]
    print_facts(
        {
            "source": summary["source"],
            "label space": summary["space"],
            "malignancy": summary["malignancy"] or "not known, for some labels are no diagnoses of the table",
            "images": summary["images"],
            "lesions or patients": f"{groups['count']} ({groups['with_several_images']} with several images)",
            "official split": summary["splits"],
            "sex": summary["sex"],
            "site": summary["site"],
            "missing": summary["missing"],
        }
    )
    total = max(summary["images"], 1)
    print_table(("class", "images", "share"), ((c, n, f"{n / total:.1%}") for c, n in summary["classes"].items()))
    told = {True: "yes", False: "no", None: "-"}
    words = summary["report"]["labels"]
    rows = ((w["word"], w["label"], w["diagnosis"], told[w["malignant"]], w["images"], w["how"]) for w in words)
    print_table(("written", "class", "diagnosis", "malignant", "rows", "how known"), rows)


@app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="New folder for the set.", show_default=False)],
    classes: Annotated[int, typer.Option("--classes", help="7 (ham7), 8 (isic8), 6 (clinical6) or 2 (binary).")] = 7,
    count: Annotated[int, typer.Option("--count", help="Number of images.")] = 200,
    size: Annotated[str, typer.Option("--size", help="Side in pixels, or WIDTHxHEIGHT.")] = "128",
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same bytes.")] = 0,
    layout: Annotated[str | None, typer.Option("--layout", help="ham10000, isic2019, splits or folders.")] = None,
    balanced: Annotated[bool, typer.Option("--balanced", help="As many of each class, not as nature has them.")] = False,
    plant_duplicates: Annotated[int, typer.Option("--plant-duplicates", help="Copies to add within lesions.")] = 0,
    plant_leaks: Annotated[int, typer.Option("--plant-leaks", help="Copies to add under other lesion ids.")] = 0,
    label_noise: Annotated[float, typer.Option("--label-noise", help="Share of lesions with a wrong label.")] = 0.0,
    confound: Annotated[bool, typer.Option("--confound", help="Let size, quality, border and name betray the class.")] = False,
    processes: Annotated[int, typer.Option("--processes", help="Drawing processes.")] = 1,
    json_: JsonOption = False,
) -> None:
    """Draw a synthetic sample set: dermoscopy-like images of no real patient, in a public data set's layout.

    Example: `lesion-hub data sample demo/data --classes 7 --count 500 --size 128`
    """
    from lesion_hub.data.synthetic import SampleSpec, write_sample_set

    sides = size.lower().split("x")
    if not 1 <= len(sides) <= 2 or not all(side.isdigit() for side in sides):
        raise DataError(f"size {size!r} is neither a number nor WIDTHxHEIGHT; for example 128 or 600x450")
    spec = SampleSpec.for_classes(
        classes,
        count=count,
        size=int(size) if len(sides) == 1 else (int(sides[0]), int(sides[1])),
        seed=seed,
        layout=layout,
        balanced=balanced,
        duplicates=plant_duplicates,
        leaks=plant_leaks,
        label_noise=label_noise,
        confound=confound,
    )
    with progress_bar("drawing lesions") as progress:
        written = write_sample_set(out, spec, processes=processes, progress=progress)
    facts = {
        "folder": str(written.root),
        "images": written.images,
        "lesions": written.lesions,
        "labels": written.labels,
        "masks": str(written.masks),
    }
    print_facts(facts, as_json=json_)


@app.command()
@takes_data_options
def cache(
    path: DataArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder that holds caches.", show_default=False)],
    size: Annotated[int, typer.Option("--size", help="Short side in pixels; the long one is 4/3 of it.")] = 224,
    fit: Annotated[str, typer.Option("--fit", help="squash, crop or pad.")] = "squash",
    on_error: Annotated[str, typer.Option("--on-error", help="fail, or skip and record bad files.")] = "fail",
    processes: Annotated[int | None, typer.Option("--processes", help="Decoding processes; default: one a core.")] = None,
    reading: ReadingOptions = ReadingOptions(),
    json_: JsonOption = False,
) -> None:
    """Decode and resize every image once, so that training reads pixels at memory speed. Safe to interrupt and repeat.

    Example: `lesion-hub data cache data/ham10000 --size 224 --out cache/`
    """
    from lesion_hub.data.cache import CacheSpec, cache_dataset

    result = read_data(path, reading)
    with progress_bar("decoding") as progress:
        made = cache_dataset(
            result.dataset, out, CacheSpec.for_size(size, fit=fit), processes=processes, on_error=on_error, progress=progress
        )
    print_facts(made.summary(), as_json=json_)


@app.command()
@takes_data_options
def audit(
    path: DataArgument,
    against: Annotated[str | None, typer.Option("--against", help="A second data set that should share nothing.")] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="Split to judge; default: the one that the data set ships, if any.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for audit.json and audit.html.")] = Path("audit"),
    workers: WorkersOption = None,
    reading: ReadingOptions = ReadingOptions(),
    json_: JsonOption = False,
) -> None:
    """Look for what makes a score misleading: duplicates, leaks, conflicts, and labels that the image source alone predicts.

    Exit status 1 where a split leaks, `--against` overlaps, or rows cannot be used and `--allow-missing` is not given.

    Example: `lesion-hub data audit data/ham10000 --manifest split.json`
    """
    from lesion_hub.data.audit import audit as run_audit
    from lesion_hub.data.audit import write_page
    from lesion_hub.files import write_json

    result = read_data(path, replace(reading, allow_missing=True))
    with progress_bar("looking at every image") as progress:
        report = run_audit(result, against=against, split=manifest or "official", workers=workers, progress=progress)
    page = write_page(report, result, out / "audit.html")
    write_json(out / "audit.json", report.to_dict())
    if json_:
        print_json(report.to_dict())
    else:
        for table in report.tables():
            print_table(table.header, table.rows, table.title)
        for warning in report.warnings:
            say(f"warning: {warning}", err=True)
        say(f"\nwritten: {page} and {out / 'audit.json'}")
    if not report.ok:
        raise DataError(f"{path}: {'; '.join(report.failures)}")
    result.report.raise_unless(reading.allow_missing)


@app.command()
@takes_data_options
def split(
    path: DataArgument,
    out: Annotated[Path, typer.Option("--out", help="Manifest file to write.", show_default=False)],
    folds: Annotated[int | None, typer.Option("--folds", help="So many folds, instead of train, val and test.")] = None,
    fractions: Annotated[tuple[float, float, float], typer.Option("--fractions", help="Shares of train, val and test.")] = (
        0.7,
        0.15,
        0.15,
    ),
    seed: Annotated[int, typer.Option("--seed", help="Same data and seed, same split.")] = 0,
    respect_official: Annotated[
        bool, typer.Option("--respect-official", help="Keep the split that the data set ships, and say what leaks across it.")
    ] = False,
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="Leave out training images that an official test part also holds.")
    ] = False,
    allow_absent: Annotated[
        bool, typer.Option("--allow-absent", help="Accept a class that is missing from some parts.")
    ] = False,
    workers: WorkersOption = None,
    reading: ReadingOptions = ReadingOptions(),
    json_: JsonOption = False,
) -> None:
    """Split by lesion or patient, near duplicates kept together, class by class; the manifest is hashed and re-checked.

    Example: `lesion-hub data split data/ham10000 --folds 5 --out folds.json`
    """
    from lesion_hub.data.splits import SplitOptions, split_source

    result = read_data(path, reading)
    options = SplitOptions(fractions, folds, seed, respect_official, drop_leaks, allow_absent)
    with progress_bar("looking for near duplicates") as progress:
        manifest = split_source(result, options, workers=workers, progress=progress)
    manifest.save(out)
    if json_:
        print_json(manifest.describe())
        return
    labels = result.space.labels
    counts = manifest.counts()
    rows = ((part, *(counts[part].get(name, 0) for name in labels), sum(counts[part].values())) for part in counts)
    print_table(("part", *labels, "images"), rows)
    for warning in manifest.warnings:
        say(f"warning: {warning}", err=True)
    say(f"\n{manifest.method}, seed {manifest.seed}, hash {manifest.hash[:12]}…: {out}")


@app.command()
@takes_data_options
def shards(
    path: DataArgument,
    out: Annotated[Path, typer.Option("--out", help="New folder for the shards.", show_default=False)],
    format_: Annotated[str, typer.Option("--format", help="parquet, or webdataset (tar).")] = "parquet",
    shard_size: Annotated[int, typer.Option("--shard-size", help="Images in a shard.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of the order of the images.")] = 0,
    reading: ReadingOptions = ReadingOptions(),
    json_: JsonOption = False,
) -> None:
    """Write a data set as shards, image files as they are, to train on as a stream. Safe to interrupt and repeat.

    Example: `lesion-hub data shards data/ham10000 --out shards/ --format webdataset`
    """
    from lesion_hub.data.write_shards import write_shards

    result = read_data(path, reading)
    with progress_bar("writing shards") as progress:
        written = write_shards(result, out, format=format_, shard_size=shard_size, seed=seed, progress=progress)
    print_facts(written, as_json=json_)
