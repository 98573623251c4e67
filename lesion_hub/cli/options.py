"""The arguments and options that several commands share, each declared once; a command's own are in its signature.

How a data set is read takes six options, which stand together in `ReadingOptions`: a command that reads one is decorated with
`takes_data_options` and gets them as its parameter ``reading``.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from lesion_hub.errors import ConfigError, DataError

# ------------------------------------------------------------------------------------------------ models

_MODEL_HELP = "Hub id (org/name) or registry name, with @v1.0.0 for a version; or a model folder."


def _folder_of_ones_own(word: str) -> Path:
    """Read the folder that a command writes into or publishes; a published version is neither changed nor published again."""
    from lesion_hub.hub.versions import without_revision

    return Path(without_revision(word, "name a folder (lesion-hub pull {name}@{revision} --to FOLDER makes one)"))


_DEVICE = typer.Option("--device", help="cpu, cuda, cuda:1, mps, or auto.")

ModelArgument = Annotated[str, typer.Argument(help=_MODEL_HELP, show_default=False)]
ModelOption = Annotated[str, typer.Option("--model", "-m", help=_MODEL_HELP)]
RunArgument = Annotated[
    Path, typer.Argument(help="Run or model folder.", show_default=False, metavar="FOLDER", parser=_folder_of_ones_own)
]
RevisionOption = Annotated[
    str | None, typer.Option("--revision", help="Version tag, commit or branch; default: the highest version.")
]
RegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry",
        help=f"Registry folder, or several, '{os.pathsep}' between them, the first first; default: $LESION_HUB_REGISTRY. "
        "The packaged one comes last.",
    ),
]
DeviceOption = Annotated[str, _DEVICE]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        help="What runs the networks on a CPU: torch, onnx (ONNX Runtime), onnx-int8 (in 8 bits, where published), or auto.",
    ),
]
OptionalDeviceOption = Annotated[str | None, _DEVICE]
ThreadsOption = Annotated[int | None, typer.Option("--threads", help="CPU threads; default: one a core.")]
ViewsOption = Annotated[int, typer.Option("--tta", help="Mirrored and turned views to average, 1 to 8.")]

# ------------------------------------------------------------------------------------------------ data

_DATA_HELP = "Folder, csv or Parquet file, or Hub data set id."
_READING = "How the data set is read"

DataArgument = Annotated[str, typer.Argument(metavar="PATH", help=_DATA_HELP, show_default=False)]
DataOption = Annotated[str, typer.Option("--data", help=_DATA_HELP, show_default=False)]
WorkersOption = Annotated[int | None, typer.Option("--workers", help="Processes; default: one a core.")]


@dataclass(frozen=True)
class ReadingOptions:
    """How a data set is read, as the command line says it; `keywords` gives it in the words of ``lesion_hub.data.read``."""

    source: Annotated[
        str | None,
        typer.Option(
            "--source", help="Layout, where it is not recognised: ham10000, isic2019, folders, …", rich_help_panel=_READING
        ),
    ] = None
    space: Annotated[
        str | None,
        typer.Option("--space", help="Label space to read into: ham7, isic8, binary, clinical6, …", rich_help_panel=_READING),
    ] = None
    column: Annotated[
        list[str] | None,
        typer.Option("--column", help="OURS=THEIRS for tables and Hub data; repeatable.", rich_help_panel=_READING),
    ] = None
    label: Annotated[
        list[str] | None, typer.Option("--label", help="THEIRS=OURS for label words; repeatable.", rich_help_panel=_READING)
    ] = None
    images: Annotated[
        list[Path] | None,
        typer.Option("--images", help="A further folder to look for images in; repeatable.", rich_help_panel=_READING),
    ] = None
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Leave out rows that cannot be used, and count them.", rich_help_panel=_READING),
    ] = False

    def keywords(self) -> dict[str, Any]:
        """Return those that were given as keywords of ``lesion_hub.data.read``; none where none was given."""
        said = {
            "source": self.source,
            "space": self.space,
            "columns": _pairs(self.column, "--column"),
            "labels": _pairs(self.label, "--label"),
            "images": tuple(self.images or ()),
            "allow_missing": self.allow_missing,
        }
        return {name: value for name, value in said.items() if value}

    def refuse_without(self, place: str | None, option: str, *, but: tuple[str, ...] = ()) -> None:
        """Refuse to ignore options that say how a data set is read where ``option`` names none; those of ``but`` may stand."""
        idle = [field.name for field in fields(self) if getattr(self, field.name) and field.name not in but]
        if place is None and idle:
            raise ConfigError(f"--{idle[0].replace('_', '-')} says how a data set is read; name one with {option}")


def _pairs(values: list[str] | None, option: str) -> dict[str, str]:
    broken = [value for value in values or () if "=" not in value]
    if broken:
        raise DataError(f"{option} {broken[0]!r} is not of the form NAME=NAME; for example {option} image_id=isic_id")
    return dict(value.split("=", 1) for value in values or ())


def takes_data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `ReadingOptions`, in the place of its parameter ``reading``, which brings their values."""
    hints = get_type_hints(ReadingOptions, include_extras=True)
    options = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        for field in fields(ReadingOptions)
    ]
    names = {option.name for option in options}

    @functools.wraps(command)
    def run(**given: Any) -> None:
        reading = ReadingOptions(**{name: given.pop(name) for name in names})
        command(**given, reading=reading)

    own = inspect.signature(command, eval_str=True).parameters.values()
    taken = names & {parameter.name for parameter in own}
    if taken:
        raise TypeError(f"{command.__name__}: {', '.join(sorted(taken))} are options of how its data set is read")
    parameters = [
        option
        for parameter in own
        for option in (options if parameter.name == "reading" else [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)])
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what typer reads
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


# ------------------------------------------------------------------------------------------------ measuring

PartOption = Annotated[str, typer.Option("--split", help="train, val, test, or all.")]
NearDuplicatesOption = Annotated[
    bool, typer.Option("--near-duplicates", help="Also look for training images by their pictures.")
]
SeenImagesOption = Annotated[
    str | None, typer.Option("--training-data", help="Where the training images are, if not in --data.")
]
ManifestOption = Annotated[Path | None, typer.Option("--manifest", help="Split file that says which images the part holds.")]
AsSpaceOption = Annotated[str | None, typer.Option("--as", help="Label space to evaluate in: ham7, binary, …")]
MirroredOption = Annotated[bool, typer.Option("--tta", help="Average mirrored and turned views.")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Evaluate on images that the model was made with; the report says so.")
]

# ------------------------------------------------------------------------------------------------ decisions

_DECIDING = "How the answer is read"

DecideOption = Annotated[
    str | None,
    typer.Option(
        "--decide", help="most_probable, balanced, or an operating point: sensitivity_95, …", rich_help_panel=_DECIDING
    ),
]
CostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--cost",
        help="TRUE:DECIDED=COST, decide for the least expected cost; others cost 1; repeatable.",
        rich_help_panel=_DECIDING,
    ),
]
PriorOption = Annotated[
    list[str] | None,
    typer.Option("--prior", help="LABEL=SHARE, re-weight to this prevalence; repeatable.", rich_help_panel=_DECIDING),
]
CoverageOption = Annotated[
    float, typer.Option("--coverage", help="Share of lesions whose set holds their label.", rich_help_panel=_DECIDING)
]
AbstainOption = Annotated[
    float | None,
    typer.Option("--abstain", help="Error that the answers given may have: 0.05, …", rich_help_panel=_DECIDING),
]


def decision_asked(decide: str | None, cost: list[str] | None) -> str | dict[str, Any] | None:
    """Return the decision that --decide or --cost asks for, in the words of ``Predictor.predict``; None for neither.

    >>> decision_asked(None, ["mel:nv=20"])
    {'cost': {'mel': {'nv': 20.0}}}
    """
    if not cost:
        return decide
    if decide is not None:
        raise ConfigError("--cost is a decision of its own; leave out --decide")
    costs: dict[str, dict[str, float]] = {}
    for pair, value in _numbers(cost, "--cost", "mel:nv=20").items():
        true, colon, decided = pair.partition(":")
        if not colon:
            raise ConfigError(f"--cost {pair!r} is not of the form TRUE:DECIDED=COST; for example --cost mel:nv=20")
        costs.setdefault(true, {})[decided] = value
    return {"cost": costs}


def rule_options(
    coverage: float, decide: str | None, cost: list[str] | None, prior: list[str] | None, abstain: float | None
) -> dict[str, Any]:
    """Return the options that say how answers are read, in the words of ``Predictor.predict``."""
    asked = {"decide": decision_asked(decide, cost), "prior": prevalences_of(prior), "abstain": abstain}
    return {"coverage": coverage, **{name: value for name, value in asked.items() if value is not None}}


def prevalences_of(prior: list[str] | None) -> dict[str, float] | None:
    """Return the prevalences of --prior by label; None where none is given.

    >>> prevalences_of(["mel=0.02"])
    {'mel': 0.02}
    """
    return _numbers(prior, "--prior", "mel=0.02") if prior else None


def _numbers(values: list[str], option: str, example: str) -> dict[str, float]:
    try:
        return {name: float(number) for name, number in (value.split("=", 1) for value in values)}
    except ValueError:
        raise ConfigError(f"{option} {' '.join(values)!r} is not NAME=NUMBER; for example {option} {example}") from None


# ------------------------------------------------------------------------------------------------ output

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
