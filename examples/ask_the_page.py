"""Ask a running page about some images: ``python examples/ask_the_page.py http://127.0.0.1:7860 IMAGE…``."""

from __future__ import annotations

import sys

from gradio_client import Client, handle_file


def main() -> None:
    url, *images = sys.argv[1:]
    client = Client(url, verbose=False)
    first = client.predict(handle_file(images[0]), api_name="/predict")
    print(f"{images[0]}: {first['label']}, malignant {first['malignancy']:.0%}")
    rows, csv, _, _ = client.predict([handle_file(image) for image in images], api_name="/batch")
    print(f"{len(rows)} images in a batch; as a table: {csv}")


if __name__ == "__main__":
    main()
