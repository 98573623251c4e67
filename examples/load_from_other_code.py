"""One model folder, four ways to load it: ``python examples/load_from_other_code.py FOLDER IMAGE``.

Ours, timm's and transformers' answers are printed beside each other: they are the same numbers. Networks of our own zoo and
custom heads are known to timm and transformers once ``lesion_hub.models`` is imported.
"""

from __future__ import annotations

import sys
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from transformers import pipeline

import lesion_hub
import lesion_hub.models


def with_lesion_hub(folder: str, image: Path) -> dict[str, float]:
    return dict(lesion_hub.from_pretrained(folder).predict(image).probabilities)


def with_timm(folder: str, image: Path) -> dict[str, float]:
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    with torch.inference_mode():
        logits = network(transform(Image.open(image).convert("RGB"))[None])
    return dict(zip(network.pretrained_cfg["label_names"], logits.softmax(1)[0].tolist(), strict=True))


def with_transformers(folder: str, image: Path) -> dict[str, float]:
    classify = pipeline("image-classification", folder)
    return {entry["label"]: entry["score"] for entry in classify(str(image), top_k=100)}


def main(folder: str, image: Path) -> None:
    answers = [load(folder, image) for load in (with_lesion_hub, with_timm, with_transformers)]
    print(f"{'':>10}  lesion_hub    timm  transformers")
    for label in answers[0]:
        print(f"{label:>10}  " + "  ".join(f"{answer[label]:8.4f}" for answer in answers))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
