"""Tiny copies of the published layouts, for tests: the same file names and csv headers, generated images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .bad_files import good_jpeg

HAM_HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def images(folder: Path, names: Iterable[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(good_jpeg())


def isic(*numbers: int, suffix: str = ".jpg") -> list[str]:
    return [f"ISIC_{number:07d}{suffix}" for number in numbers]


def ham10000(root: Path) -> Path:
    """Six images of four lesions in the two folders of Kaggle's copy: nv nv mel mel akiec akiec."""
    text(
        root / "HAM10000_metadata.csv",
        HAM_HEADER,
        "HAM_1,ISIC_0000001,nv,histo,80.0,male,scalp",
        "HAM_1,ISIC_0000002,nv,histo,80.0,male,scalp",
        "HAM_2,ISIC_0000003,mel,histo,,unknown,unknown",
        "HAM_2,ISIC_0000004,mel,histo,,unknown,unknown",
        "HAM_3,ISIC_0000005,akiec,consensus,45.0,female,back",
        "HAM_4,ISIC_0000006,akiec,follow_up,0.0,female,foot",
    )
    images(root / "HAM10000_images_part_1", isic(1, 2, 3))
    images(root / "HAM10000_images_part_2", isic(4, 5, 6))
    return root


def isic2016(root: Path) -> Path:
    train, test = "ISBI2016_ISIC_Part3_Training", "ISBI2016_ISIC_Part3_Test"
    lines = ["ISIC_0000001,benign", "ISIC_0000002,malignant", "ISIC_0000003,benign"]
    text(root / f"{train}_GroundTruth.csv", *lines)
    text(root / f"{test}_GroundTruth.csv", "ISIC_0000004,1.0", "ISIC_0000005,0.0")
    images(root / f"{train}_Data", isic(1, 2, 3))
    images(root / f"{test}_Data", isic(4, 5))
    return root


def isic2017(root: Path) -> Path:
    header = "image_id,melanoma,seborrheic_keratosis"
    rows = ["ISIC_0000001,1.0,0.0", "ISIC_0000002,0.0,1.0", "ISIC_0000003,0.0,0.0"]
    text(root / "ISIC-2017_Training_Part3_GroundTruth.csv", header, *rows)
    text(root / "ISIC-2017_Validation_Part3_GroundTruth.csv", header, "ISIC_0000004,0.0,0.0")
    text(root / "ISIC-2017_Test_v2_Part3_GroundTruth.csv", header, "ISIC_0000005,1.0,0.0", "ISIC_0000006,0.0,1.0")
    facts = ["image_id,age_approximate,sex", "ISIC_0000001,55,female", "ISIC_0000002,unknown,unknown"]
    text(root / "ISIC-2017_Training_Data" / "ISIC-2017_Training_Data_metadata.csv", *facts)
    images(root / "ISIC-2017_Training_Data", [*isic(1, 2, 3), *isic(1, 2, 3, suffix="_superpixels.png")])
    images(root / "ISIC-2017_Validation_Data", isic(4))
    images(root / "ISIC-2017_Test_v2_Data", isic(5, 6))
    return root


def isic2018(root: Path) -> Path:
    def truth(split: str, *rows: str) -> None:
        folder = root / f"ISIC2018_Task3_{split}_GroundTruth"
        text(folder / f"ISIC2018_Task3_{split}_GroundTruth.csv", "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC", *rows)

    truth("Training", "ISIC_0000001,1,0,0,0,0,0,0", "ISIC_0000002,0,1,0,0,0,0,0", "ISIC_0000003,1,0,0,0,0,0,0")
    truth("Test", "ISIC_0000004,0.0,1.0,0.0,0.0,0.0,0.0,0.0")
    text(
        root / "ISIC2018_Task3_Training_LesionGroupings.csv",
        "image,lesion_id,diagnosis_confirm_type",
        "ISIC_0000001,HAM_1,histopathology",
        "ISIC_0000003,HAM_1,histopathology",
    )
    images(root / "ISIC2018_Task3_Training_Input", isic(1, 2, 3))
    images(root / "ISIC2018_Task3_Test_Input", isic(4))
    return root


def isic2019(root: Path, *, with_images: bool = True) -> Path:
    """Ids 1..6 are those of `ham10000` above: two of its akiec are AK and SCC here."""
    text(
        root / "ISIC_2019_Training_GroundTruth.csv",
        "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK",
        "ISIC_0000001_downsampled,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_0000002,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_0000003,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_0000004,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_0000005,0.0,0.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_0000006,0.0,0.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0",
        "ISIC_0000007,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0",
        "ISIC_0000008,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0",
    )
    text(
        root / "ISIC_2019_Training_Metadata.csv",
        "image,age_approx,anatom_site_general,lesion_id,sex",
        "ISIC_0000001_downsampled,55,anterior torso,HAM_1,female",
        "ISIC_0000002,55,anterior torso,HAM_1,female",
        "ISIC_0000003,,,,",
    )
    if with_images:
        names = [*isic(1, suffix="_downsampled.jpg"), *isic(2, 3, 4, 5, 6, 7, 8)]
        images(root / "ISIC_2019_Training_Input" / "ISIC_2019_Training_Input", names)
    return root


def isic2020(root: Path, name: str = "ISIC_2020_Training_GroundTruth.csv") -> Path:
    text(
        root / name,
        "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target",
        "ISIC_0000001,IP_1,male,45.0,head/neck,unknown,benign,0",
        "ISIC_0000002,IP_1,male,45.0,torso,nevus,benign,0",
        "ISIC_0000003,IP_2,female,60.0,palms/soles,melanoma,malignant,1",
        "ISIC_0000004,IP_3,,,,melanoma,malignant,1",
    )
    images(root / "jpeg" / "train", isic(1, 2, 3, 4))
    images(root / "jpeg" / "test", isic(5, 6))
    return root


def tree(root: Path, classes: Iterable[str], splits: Iterable[str] = ("",), each: int = 2) -> Path:
    for split in splits:
        for name in classes:
            images(root / split / name, [f"{number}.jpg" for number in range(each)])
    return root
