"""Bulk scoring over processes and machines: ``accelerate launch -m lesion_hub.score DATA --model M --out DIR``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lesion_hub.config import validated
from lesion_hub.errors import LesionHubError
from lesion_hub.extras import extras_explained
from lesion_hub.inference import from_pretrained

if TYPE_CHECKING:
    from lesion_hub.inference.bulk import ScoreReport


def main(arguments: Sequence[str] | None = None) -> int:
    """Score this process's share; exit status 0, or 1 with one line on standard error."""
    try:
        with extras_explained():
            report = run(parsed(arguments))
    except LesionHubError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(json.dumps(report.to_dict()) + "\n")
    return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="lesion_hub.score", description=__doc__)
    parser.add_argument("data", help="folder, csv or Parquet file, or Hub data set id")
    parser.add_argument("--model", required=True, help="Hub id or registry name, with @v1.0.0 for a version; or model folder")
    parser.add_argument("--out", required=True, help="folder for the Parquet shards; continued where it stands")
    parser.add_argument("--revision", help="version of the model")
    parser.add_argument("--registry", help="registry folder, or several, the first first")
    parser.add_argument("--source", help="layout of DATA, to score its rows with their labels")
    parser.add_argument("--streaming", action="store_true", help="read DATA as a stream")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--shard-size", type=int, default=1024)
    parser.add_argument("--engine", default="auto", help="what runs the networks on a CPU: torch, onnx, onnx-int8, or auto")
    parser.add_argument("--tta", type=int, default=1)
    parser.add_argument("--decide", default="most_probable", help="most_probable, balanced, or an operating point")
    parser.add_argument("--abstain", type=float, help="error that the answers given may have")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> ScoreReport:
    """Load the model and score this process's share."""
    from lesion_hub.inference.bulk import Process, ScoreOptions, score_in_bulk
    from lesion_hub.inference.rows import open_rows

    sizes = {"batch_size": options.batch_size, "shard_size": options.shard_size, "tta": options.tta}
    chosen = validated(ScoreOptions, {**sizes, "decide": options.decide, "abstain": options.abstain}, "score")
    source = open_rows(options.data, source=options.source, streaming=options.streaming)
    # What ``accelerate launch`` and ``torchrun`` tell a process. No process group is made: nothing is exchanged.
    process = Process(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    model = from_pretrained(
        options.model, revision=options.revision, registry=options.registry, device=device, engine=options.engine
    )
    return score_in_bulk(model, source, options.out, chosen, process=process)


if __name__ == "__main__":
    sys.exit(main())
