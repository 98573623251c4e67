"""Run one model in four ways: ``python examples/load_from_other_code.py [NAME] [--image IMAGE]``.

transformers, timm, lesion-hub and onnxruntime predict on the same image from the same folder. Their probabilities are printed
side by side with the largest difference of any logit, and more than 1e-4 is an error. NAME is a registry name, a Hub id or a
model folder. Networks of our own zoo and custom heads are known to timm and transformers once ``lesion_hub.models`` is
imported. An ensemble has no single network: its members are compared one by one, and lesion-hub gives the ensemble's answer.
Needs ``pip install 'lesion-hub[onnx]'``, and no network for a model of the registry.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.special import softmax
from timm.data import create_transform, resolve_model_data_config
from transformers import pipeline

import lesion_hub
import lesion_hub.models
from lesion_hub.inference.export import export_onnx

DEFAULT_MODEL = "dermoscopy-lite0"
DEFAULT_IMAGE = Path(__file__).resolve().parents[1] / "spaces" / "lesion-ensemble" / "examples" / "drawn_as_melanoma.jpg"
LARGEST_DIFFERENCE = 1e-4

Logits = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default=DEFAULT_MODEL, help="registry name, Hub id or folder; an ensemble too")
    parser.add_argument("--image", type=Path, default=DEFAULT_IMAGE)
    parser.add_argument("--registry", type=Path, help="registry root (default: the packaged one)")
    options = parser.parse_args()

    ensemble = lesion_hub.pull(options.name, registry=options.registry).folder / "ensemble.json"
    models = [(options.name, None)]
    if ensemble.is_file():
        models = [(member["name"], member["revision"]) for member in json.loads(ensemble.read_text())["members"]]
    worst = max(compare(name, revision, options.registry, options.image) for name, revision in models)
    if ensemble.is_file():
        whole = lesion_hub.from_pretrained(options.name, registry=options.registry).predict(options.image)
        print(f"\n{options.name}: " + ", ".join(f"{label} {value:.6f}" for label, value in whole.probabilities.items()))
    sys.exit(int(worst > LARGEST_DIFFERENCE))


def compare(name: str, revision: str | None, registry: Path | None, image: Path) -> float:
    """Print the four answers as probabilities; return the largest difference of any logit, means subtracted."""
    folder = lesion_hub.pull(name, revision, registry=registry).folder
    model = lesion_hub.from_pretrained(str(folder))
    answers = {
        "transformers": with_transformers(folder, image, model.labels),
        "timm": with_timm(folder, image),
        "lesion-hub": with_lesion_hub(model, image),
        "onnx": with_onnx(model, image),
    }
    logits = np.array([answer - answer.mean() for answer in answers.values()])
    print(f"\n{name}\n{'':>16}" + "".join(f"{way:>14}" for way in answers))
    for label, row in zip(model.labels, softmax(logits, axis=1).T, strict=True):
        print(f"{label:>16}" + "".join(f"{value:14.6f}" for value in row))
    difference = float(np.ptp(logits, axis=0).max())
    print(f"largest difference of a logit: {difference:.1e}")
    return difference


def with_transformers(folder: Path, image: Path, labels: Sequence[str]) -> Logits:
    """Run the transformers pipeline, and put its scores in the order of ``labels``."""
    classify = pipeline("image-classification", str(folder))
    scores = {entry["label"]: entry["score"] for entry in classify(str(image), top_k=len(labels), function_to_apply="none")}
    return np.array([scores[label] for label in labels])


def with_timm(folder: Path, image: Path) -> Logits:
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    with torch.inference_mode():
        return network(transform(Image.open(image).convert("RGB"))[None])[0].double().numpy()


def with_lesion_hub(model: lesion_hub.Predictor, image: Path) -> Logits:
    """Return the logarithm of the calibrated probabilities, which is the logits plus a constant."""
    return np.log(list(model.predict(image).probabilities.values()))


def with_onnx(model: lesion_hub.Predictor, image: Path) -> Logits:
    """Run the exported file, with the preprocessing that its metadata describe."""
    with tempfile.TemporaryDirectory() as scratch:
        session = onnxruntime.InferenceSession(export_onnx(model, Path(scratch) / "model.onnx").path)
    facts = session.get_modelmeta().custom_metadata_map
    transform = create_transform(
        tuple(json.loads(facts["input_size"])),
        is_training=False,
        mean=json.loads(facts["mean"]),
        std=json.loads(facts["std"]),
        interpolation=facts["interpolation"],
        crop_pct=float(facts["crop_pct"]),
        crop_mode=facts["crop_mode"],
    )
    return session.run(["logits"], {"images": transform(Image.open(image).convert("RGB"))[None].numpy()})[0][0].astype(float)


if __name__ == "__main__":
    try:
        main()
    except lesion_hub.LesionHubError as error:
        sys.exit(f"error: {error}")
