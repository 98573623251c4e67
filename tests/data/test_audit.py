"""The audit finds what was planted, judges splits, and says how far the label is guessed without the lesion."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lesion_hub.data import read
from lesion_hub.data.audit import AuditReport, audit, source_only, write_page
from lesion_hub.data.audit.source_only import measure_image
from lesion_hub.data.splits import SplitImages, SplitOptions, split_images
from lesion_hub.errors import DataError
from tests.data.pictures import jpeg, spot, write_tree

pytestmark = pytest.mark.slow

SIZE = (96, 72)


def _half_turn(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.ROTATE_180)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train and test parts that share one picture exactly and one turned, and an image that cannot be read."""
    root = tmp_path_factory.mktemp("audit") / "le<b>aky"
    rows = {f"train/{('mel', 'nv')[seed % 2]}/ISIC_{seed:07d}.jpg": spot(seed, SIZE) for seed in range(16)}
    rows |= {f"test/{('mel', 'nv')[seed % 2]}/ISIC_{seed:07d}.jpg": spot(seed, SIZE) for seed in range(20, 26)}
    rows["test/mel/ISIC_0000100.jpg"] = spot(0, SIZE)
    rows["test/mel/ISIC_0000101.jpg"] = _half_turn(spot(1, SIZE))
    write_tree(root, rows)
    (root / "train/nv/ISIC_0000200.jpg").write_bytes(jpeg(spot(30, SIZE))[:500])
    return root


@pytest.fixture(scope="module")
def report(leaky: Path) -> AuditReport:
    return audit(leaky, workers=1)


def test_planted_duplicates_leaks_conflicts_and_damage_are_found(report: AuditReport) -> None:
    found = json.loads(json.dumps(report.to_dict()))
    assert found["images"] == 25 and found["classes"] == {"mel": 13, "nv": 12}
    assert [sorted(pair) for pair in found["exact_duplicate_pairs"]] == [["ISIC_0000000", "ISIC_0000100"]]
    assert [sorted(pair) for pair in found["near_duplicate_pairs"]] == [["ISIC_0000001", "ISIC_0000101"]]
    assert {leak["kind"] for leak in found["leaks"]} == {"exact", "near"}
    assert not report.ok and "the official split leaks" in report.failures[0]
    assert list(found["unreadable"]) == ["ISIC_0000200"]
    assert found["conflicts"][0]["labels"] == ["mel", "nv"]


def test_without_a_split_nothing_leaks(leaky: Path) -> None:
    report = audit(leaky, split=None, workers=1)
    assert report.ok and report.to_dict()["leaks"] == [] and report.to_dict()["split"] is None


def test_a_manifest_is_judged_in_place_of_the_official_split(leaky: Path, tmp_path: Path) -> None:
    result = read(leaky)
    images = SplitImages.of(result)
    blind = split_images(images, SplitOptions(folds=2, seed=3))
    blind.save(tmp_path / "split.json")
    report = audit(result, split=tmp_path / "split.json", workers=1)
    parts = blind.part_of
    assert report.split == "split.json"
    assert report.ok == (parts["ISIC_0000000"] == parts["ISIC_0000100"] and parts["ISIC_0000001"] == parts["ISIC_0000101"])
    other = SplitImages([f"x{image_id}" for image_id in images.ids], images.labels, images.groups, images.space)
    with pytest.raises(DataError, match="is not in the split"):
        audit(result, split=split_images(other, SplitOptions(folds=2)), workers=1)


def test_two_data_sets_must_not_overlap(leaky: Path, tmp_path: Path) -> None:
    other = write_tree(
        tmp_path / "other",
        {
            "mel/a.jpg": spot(2, SIZE),
            "mel/b.jpg": spot(50, SIZE),
            "nv/c.jpg": _half_turn(spot(3, SIZE)),
            "nv/ISIC_0000004.jpg": spot(51, SIZE),
        },
    )
    report = audit(leaky, against=other, split=None, workers=1)
    assert report.overlap is not None and not report.ok
    assert report.overlap.exact == (("ISIC_0000002", "mel/a.jpg"),)
    assert report.overlap.near == (("ISIC_0000003", "nv/c.jpg"),)
    assert report.overlap.ids == ("ISIC_0000004",)


def test_the_report_does_not_depend_on_the_run(leaky: Path, report: AuditReport) -> None:
    assert audit(leaky, workers=2).to_dict() == report.to_dict()


def test_the_page_needs_nothing_from_outside_and_escapes_names(leaky: Path, report: AuditReport, tmp_path: Path) -> None:
    result = read(leaky)
    text = write_page(report, result, tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "<b>aky" not in text and "le&lt;b&gt;aky" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text) and "@import" not in text and "<script" not in text
    assert text.count("data:image/svg+xml;base64,") >= 4 and text.count("data:image/jpeg;base64,") >= 4
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert write_page(report, result, tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_the_tables_name_the_verdict_and_the_classes(report: AuditReport) -> None:
    tables = {table.title: table for table in report.tables()}
    assert ("mel", "13", "52.0%") in tables["Classes"].rows
    summary = next(table for title, table in tables.items() if title.startswith("Audit of"))
    assert any("FAILED" in value for _, value in summary.rows)


def test_technical_traits_that_go_with_the_label_betray_it_and_others_do_not() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    groups = np.arange(300) // 2
    labels = labels[groups * 2]
    noise = rng.standard_normal((300, 4))
    betrayed = source_only({"size": 10.0 * labels[:, None] + noise}, labels, groups, ["a", "b", "c"], workers=1)
    honest = source_only({"size": noise, "source": np.zeros((300, 1))}, labels, groups, ["a", "b", "c"], workers=1)
    assert betrayed is not None and honest is not None
    assert betrayed.auroc > 0.98 and betrayed.permuted < 0.65
    assert 0.35 < honest.auroc < 0.65 and honest.by_trait["source"] == 0.5


def test_groups_cannot_be_memorised_by_the_baseline() -> None:
    """Each lesion's traits are its own, so only a split that cuts lesions would let a forest recognise them."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 10)
    traits = {"border colour": rng.standard_normal((40, 3))[groups]}
    result = source_only(traits, rng.integers(0, 2, 40)[groups], groups, ["a", "b"], workers=1)
    assert result is not None and result.auroc < 0.75


def test_classes_with_too_few_groups_are_left_out_of_the_baseline() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [2] * 3)
    result = source_only({"size": np.ones((23, 1))}, labels, np.arange(23), ["a", "b", "c"], workers=1)
    assert result is not None and result.left_out == ("c",) and set(result.by_class) == {"a", "b"}
    assert source_only({"size": np.ones((3, 1))}, np.array([0, 1, 1]), np.arange(3), ["a", "b"]) is None


def test_a_confounded_set_of_pictures_is_exposed(tmp_path: Path) -> None:
    clean = {f"{('mel', 'nv')[seed % 2]}/{seed:03d}.jpg": spot(seed, SIZE) for seed in range(60)}
    confounded = {
        f"{('mel', 'nv')[seed % 2]}/{('IMG_', 'DSC')[seed % 2]}{seed:03d}.jpg": spot(seed, (SIZE, (72, 72))[seed % 2])
        for seed in range(60)
    }
    low = audit(write_tree(tmp_path / "clean", clean), workers=1).source_only
    high = audit(write_tree(tmp_path / "confounded", confounded), workers=1)
    assert low is not None and low.auroc < 0.65
    assert high.source_only is not None and high.source_only.auroc > 0.9
    assert any("source-only AUROC" in line for line in high.warnings)


def test_odd_files_are_described() -> None:
    stream = io.BytesIO()
    image = Image.new("L", (40, 200), 90)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(stream, "PNG", exif=exif)
    _, findings = measure_image(stream.getvalue(), "folder/Mole 12.jpg")
    assert findings.name_pattern == "Mole 99.jpg"
    assert {"a PNG file named .jpg", "stored as L, not RGB", "only 40x200 pixels", "blank"} <= set(findings.oddities)


def test_blur_lowers_sharpness() -> None:
    sharp = spot(3)
    blurred = sharp.resize((25, 19)).resize(sharp.size)
    values = [measure_image(jpeg(image, 95), "a.jpg")[1].quality.sharpness for image in (sharp, blurred)]
    assert values[1] < 0.5 * values[0]
