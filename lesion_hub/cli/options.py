"""The arguments and options that several commands share, each declared once; a command's own are in its signature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# ------------------------------------------------------------------------------------------------ models

ModelArgument = Annotated[str, typer.Argument(help="Hub id (org/name), registry name, or model folder.", show_default=False)]
ModelOption = Annotated[str, typer.Option("--model", "-m", help="Hub id (org/name), registry name, or model folder.")]
RunArgument = Annotated[Path, typer.Argument(help="Run or model folder.", show_default=False)]
RevisionOption = Annotated[
    str | None, typer.Option("--revision", help="Version tag, commit or branch; default: the highest version.")
]
RegistryOption = Annotated[
    Path | None, typer.Option("--registry", help="Registry root; default: $LESION_HUB_REGISTRY, else the packaged one.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, mps, or auto.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", help="CPU threads; default: one a core.")]
ViewsOption = Annotated[int, typer.Option("--tta", help="Mirrored and turned views to average, 1 to 8.")]

# ------------------------------------------------------------------------------------------------ data

_DATA_HELP = "Folder, csv or Parquet file, or Hub data set id."

DataArgument = Annotated[str, typer.Argument(metavar="PATH", help=_DATA_HELP, show_default=False)]
DataOption = Annotated[str, typer.Option("--data", help=_DATA_HELP, show_default=False)]
SourceOption = Annotated[
    str | None, typer.Option("--source", help="Layout, where it is not recognised: ham10000, isic2019, folders, …")
]
SpaceOption = Annotated[str | None, typer.Option("--space", help="Label space to read into: ham7, isic8, binary, clinical6, …")]
ColumnsOption = Annotated[list[str] | None, typer.Option("--column", help="OURS=THEIRS for tables and Hub data; repeatable.")]
LabelsOption = Annotated[list[str] | None, typer.Option("--label", help="THEIRS=OURS for label words; repeatable.")]
ImagesOption = Annotated[
    list[Path] | None, typer.Option("--images", help="A further folder to look for images in; repeatable.")
]
AllowMissingOption = Annotated[
    bool, typer.Option("--allow-missing", help="Leave out rows that cannot be used, and count them.")
]
WorkersOption = Annotated[int | None, typer.Option("--workers", help="Processes; default: one a core.")]

# ------------------------------------------------------------------------------------------------ measuring

PartOption = Annotated[str, typer.Option("--split", help="train, val, test, or all.")]
ManifestOption = Annotated[Path | None, typer.Option("--manifest", help="Split file that says which images the part holds.")]
AsSpaceOption = Annotated[str | None, typer.Option("--as", help="Label space to evaluate in: ham7, binary, …")]
MirroredOption = Annotated[bool, typer.Option("--tta", help="Average mirrored and turned views.")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Evaluate on images that the model was made with; the report says so.")
]

# ------------------------------------------------------------------------------------------------ output

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")]
