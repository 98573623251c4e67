"""Make a folder of images as a clinic keeps them: subfolders by year, a semicolon table with its own headings and words,
the same picture twice, a file that was cut short. The lesions are drawn; nobody's skin is in it.

    python examples/messy_clinic.py afternoon/clinic --count 700
    python examples/messy_clinic.py afternoon/branch --count 240 --seed 8 --camera darken
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from lesion_hub.data.corruptions import CORRUPTIONS, corrupt
from lesion_hub.data.synthetic import SampleSpec, write_sample_set

# What the doctors of this clinic write, not always the same word for the same thing.
WORDS = {
    "akiec": ("aktinische Keratose",),
    "bcc": ("Basalzellkarzinom", "basal cell carcinoma"),
    "bkl": ("seborrhoische Keratose",),
    "df": ("Dermatofibrom",),
    "mel": ("Melanom", "melanoma"),
    "nv": ("Nävus", "nevus", "melanocytic nevus"),
    "vasc": ("Hämangiom",),
}
HEADINGS = ("Bild", "Fall", "Befund", "Lebensalter", "Geschlecht")
FOLDERS = ("Bilder 2023", "Bilder 2024", "nachtrag")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=700, help="images (default 700)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--camera", choices=sorted(CORRUPTIONS), help="what another camera does to every picture")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder, "drawn")
        write_sample_set(drawn, SampleSpec(count=options.count, size=(128, 96), seed=options.seed), processes=2)
        with next(drawn.glob("*metadata.csv")).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        pictures = {path.stem: path for path in drawn.rglob("*.jpg")}

        for name in FOLDERS:
            (options.out / name).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(options.seed)
        table = []
        for number, row in enumerate(rows):
            words = WORDS[row["dx"]]
            target = options.out / FOLDERS[int(rng.integers(len(FOLDERS)))] / f"{options.out.name}_{number:04d}.JPG"
            if options.camera:
                pixels = np.asarray(Image.open(pictures[row["image_id"]]).convert("RGB"))
                Image.fromarray(corrupt(pixels, options.camera, severity=3, seed=number)).save(target, "JPEG", quality=90)
            else:
                shutil.copyfile(pictures[row["image_id"]], target)
            age = row["age"].replace(".", ",")
            table.append(
                (target.name, row["lesion_id"], words[int(rng.integers(len(words)))], age, row["sex"][:1].replace("f", "w"))
            )

        # Somebody added the first picture again under another name and another case, and a transfer broke off.
        again = options.out / FOLDERS[-1] / f"{options.out.name}_9000.JPG"
        shutil.copyfile(next(options.out.rglob(table[0][0])), again)
        table.append((again.name, f"F9{options.seed:03d}", *table[0][2:]))
        broken = next(options.out.rglob(table[1][0]))
        broken.write_bytes(broken.read_bytes()[:400])

    with (options.out / "Befunde.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=";").writerows([HEADINGS, *table])
    print(f"{options.out}: {len(table)} rows, {len({row[1] for row in table})} cases")


if __name__ == "__main__":
    main()
