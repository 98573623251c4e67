"""Load a published model and predict one image: ``python examples/predict.py NAME IMAGE``."""

from __future__ import annotations

import sys

import lesion_hub


def main(name: str, image: str) -> None:
    model = lesion_hub.from_pretrained(name)
    prediction = model.predict(image)
    print(f"{name} {model.revision or ''} on {image}")
    for label, probability in prediction.top(len(model.labels)):
        bar = "#" * round(40 * probability)
        description = model.space.descriptions[model.space.index(label)]
        print(f"  {label:>6} {probability:6.1%} {bar:<40} {description}")
    if prediction.malignancy is not None:
        print(f"  the model's estimate that the lesion is malignant: {prediction.malignancy:.1%}")
    print("  Not a medical device: see a dermatologist about any lesion that worries you.")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except lesion_hub.LesionHubError as error:
        sys.exit(f"error: {error}")
