import csv
import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lesion_hub.data.synthetic import APPEARANCES, SampleSpec, draw_lesion, draw_planned, plan_sample_set, write_sample_set
from lesion_hub.data.synthetic.canvas import LesionView, draw_body
from lesion_hub.data.synthetic.diagnoses import DEMOGRAPHICS, ISIC_SITES, LOCALIZATIONS
from lesion_hub.data.synthetic.drawing import check_structures
from lesion_hub.data.synthetic.plan import SAMPLE_SPACES
from lesion_hub.data.synthetic.structures import STRUCTURES
from lesion_hub.data.synthetic.write import _write_image
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import canonical_site, label_space

SPACES = sorted(SAMPLE_SPACES)


def contents(root):
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---------------------------------------------------------------------------------------------------- one lesion


@settings(max_examples=30, deadline=None)
@given(
    diagnosis=st.sampled_from(sorted(APPEARANCES)),
    seed=st.integers(0, 2**62),
    width=st.integers(32, 140),
    height=st.integers(32, 140),
    view=st.integers(0, 200),
)
def test_any_lesion_can_be_drawn_at_any_size(diagnosis, seed, width, height, view):
    lesion = draw_lesion(diagnosis, seed, (width, height), view=view)
    assert (lesion.image.shape, lesion.image.dtype) == ((height, width, 3), np.uint8)
    assert (lesion.mask.shape, lesion.mask.dtype) == ((height, width), np.bool_)
    assert 0.002 < lesion.mask.mean() < 0.98
    assert lesion.image.std() > 2


@pytest.mark.parametrize("diagnosis", sorted(APPEARANCES))
def test_the_mask_lies_on_what_differs_from_the_skin(diagnosis):
    """Inside the mask the picture is farther from the colour of the skin than outside, on average over lesions."""
    contrasts = []
    for seed in range(12):
        lesion = draw_lesion(diagnosis, seed, 64, artefacts=False)
        skin = np.median(lesion.image[~lesion.mask], axis=0)
        distance = np.abs(lesion.image - skin).sum(-1)
        contrasts.append(distance[lesion.mask].mean() / distance[~lesion.mask].mean())
    assert np.median(contrasts) > 1.5


def test_a_seed_and_a_view_fix_every_pixel():
    first, again = (draw_lesion("bkl", 4, 64, view=1) for _ in range(2))
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, draw_lesion("bkl", 4, 64, view=2).image)
    assert not np.array_equal(first.image, draw_lesion("bkl", 5, 64, view=1).image)


def test_views_of_a_lesion_share_the_patient_and_the_skin_but_not_the_frame():
    views = [draw_lesion("mel", 77, 64, view=view) for view in range(4)]
    assert len({(view.patient, view.fitzpatrick) for view in views}) == 1
    assert len({view.mask.sum() for view in views}) == 4


def test_views_of_a_lesion_are_more_alike_than_two_lesions():
    def lesion_colour(seed, view):
        drawn = draw_lesion("mel", seed, 64, view=view, artefacts=False)
        inside, outside = drawn.image[drawn.mask].mean(0), drawn.image[~drawn.mask].mean(0)
        return np.log(inside / outside)

    within = [np.abs(lesion_colour(seed, 0) - lesion_colour(seed, 1)).sum() for seed in range(15)]
    across = [np.abs(lesion_colour(seed, 0) - lesion_colour(seed + 1, 1)).sum() for seed in range(15)]
    assert np.mean(within) < 0.6 * np.mean(across)


def test_a_lesion_looks_the_same_at_every_resolution():
    for seed in range(5):
        small = draw_lesion("ak", seed, 96, artefacts=False)
        large = draw_lesion("ak", seed, 384, artefacts=False)
        shrunk = np.asarray(Image.fromarray(large.mask).resize((96, 96), Image.Resampling.NEAREST))
        assert (shrunk == small.mask).mean() > 0.97


def test_a_turned_view_shows_the_outline_turned():
    appearance = APPEARANCES["ak"]
    upright = LesionView(128, 128, (64.0, 64.0), 40.0, 0.0)
    turned = replace(upright, angle=np.pi / 2)
    masks = [draw_body(view, appearance, np.random.default_rng(3)).mask for view in (upright, turned)]
    assert (np.rot90(masks[0], -1) == masks[1]).mean() > 0.98
    assert (masks[0] == masks[1]).mean() < 0.97


def test_every_structure_named_in_the_table_can_be_drawn_and_none_is_left_over():
    named = {name for appearance in APPEARANCES.values() for name in appearance.structures}
    assert named == set(STRUCTURES)
    assert set(DEMOGRAPHICS) == set(APPEARANCES)


def test_a_structure_that_is_not_registered_is_refused_and_the_nearest_named():
    misspelt = replace(APPEARANCES["nv"], structures={"netwrok": (1.0, 0.5, 0.9)})
    with pytest.raises(DataError, match="structure of nv: 'netwrok'; did you mean 'network'"):
        check_structures({**APPEARANCES, "nv": misspelt})


def test_sites_are_words_that_the_taxonomy_knows():
    assert all(canonical_site(site) for site in LOCALIZATIONS)
    assert set(ISIC_SITES) == set(LOCALIZATIONS)
    assert all(canonical_site(ISIC_SITES[site]) for site in LOCALIZATIONS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nevus", 0, 64), "unknown diagnosis 'nevus'"),
        (("nv", 0, 31), "31x31"),
        (("nv", 0, (64, 1025)), "64x1025"),
        (("nv", -1, 64), "negative"),
    ],
)
def test_a_lesion_that_cannot_be_drawn_is_refused_in_one_line(arguments, words):
    with pytest.raises(DataError, match=words) as caught:
        draw_lesion(*arguments)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------ the plan


def test_the_tables_of_the_label_spaces_agree_with_the_taxonomy():
    for space in SPACES:
        labels, drawn_for = set(label_space(space).labels), SAMPLE_SPACES[space].drawn
        drawn = {label for mixture in drawn_for.values() for label in mixture} | (labels - set(drawn_for))
        assert set(drawn_for) <= labels
        assert set(SAMPLE_SPACES[space].shares) == labels
        assert drawn <= set(APPEARANCES)


@settings(max_examples=40, deadline=None)
@given(
    space=st.sampled_from(SPACES),
    seed=st.integers(0, 2**31),
    short=st.integers(1, 60),
    more=st.integers(0, 60),
    balanced=st.booleans(),
    label_noise=st.sampled_from([0.0, 0.2]),
    confound=st.sampled_from([(), ("size", "name")]),
)
def test_an_image_depends_on_the_seed_and_its_number_alone(space, seed, short, more, balanced, label_noise, confound):
    spec = SampleSpec(
        space=space, seed=seed, count=short, balanced=balanced, label_noise=label_noise, confound=confound, size=64
    )
    assert plan_sample_set(spec).images == plan_sample_set(replace(spec, count=short + more)).images[:short]


@settings(max_examples=25, deadline=None)
@given(space=st.sampled_from(SPACES), seed=st.integers(0, 2**31), count=st.integers(1, 150))
def test_ids_are_unique_and_a_lesion_stays_whole(space, seed, count):
    images = plan_sample_set(SampleSpec(space=space, seed=seed, count=count, duplicates=5, leaks=5)).images
    assert len({image.image_id for image in images}) == count + 10
    lesions = {}
    for image in images:
        lesions.setdefault(image.lesion_id, set()).add((image.lesion_seed, image.label, image.split, image.patient))
    assert all(len(facts) == 1 for facts in lesions.values())


@pytest.mark.parametrize("space", SPACES)
def test_a_balanced_set_is_balanced_at_every_length(space):
    classes = len(label_space(space))
    images = plan_sample_set(SampleSpec(space=space, count=7 * classes + 3, balanced=True, seed=2)).images
    for length in range(1, len(images) + 1):
        counts = Counter(image.label for image in images[:length])
        assert max(counts.values()) - min(counts.get(label, 0) for label in label_space(space).labels) <= 1


def test_a_natural_set_is_as_imbalanced_as_ham10000_and_has_every_label_three_times():
    images = plan_sample_set(SampleSpec(count=3000)).images
    shares = {label: count / 3000 for label, count in Counter(image.label for image in images).items()}
    assert 0.62 < shares["nv"] < 0.70
    assert 0.008 < shares["df"] < 0.02
    lesions = {(image.lesion_id, image.label) for image in plan_sample_set(SampleSpec(count=60)).images}
    assert min(Counter(label for _, label in lesions).values()) >= 3


def test_lesions_have_one_to_four_views_and_some_facts_are_missing():
    images = plan_sample_set(SampleSpec(count=3000)).images[:-4]
    views = Counter(Counter(image.lesion_id for image in images).values())
    assert set(views) == {1, 2, 3, 4}
    missing = [np.mean([getattr(image.patient, fact) is None for image in images]) for fact in ("age", "sex", "localization")]
    assert all(0 < share < 0.06 for share in missing)


def test_patients_fit_their_diagnosis():
    images = plan_sample_set(SampleSpec(space="clinical6", count=900, balanced=True)).images
    ages = {
        label: np.mean([image.patient.age for image in images if image.label == label and image.patient.age])
        for label in ("acne", "malignant")
    }
    assert ages["acne"] < 30 < 55 < ages["malignant"]


# ------------------------------------------------------------------------------------- independence, and confounds


def technical_traits(spec):
    """What a source-only baseline sees: size, aspect, quantisation, border colour, digits and pattern of the name."""
    plan = plan_sample_set(spec)
    rows = []
    for image in plan.images:
        pixels, _ = draw_planned(spec, image, plan.clinics.get(image.clinic or ""))
        height, width = pixels.shape[:2]
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).mean(0)
        letters = sum(map(ord, image.image_id[:3]))
        digits = int("".join(filter(str.isdigit, image.image_id))[:7])
        rows.append((width, height, width / height, image.quality, *border, letters, digits, len(image.image_id)))
    labels, lesions = zip(*((image.label, image.lesion_id) for image in plan.images), strict=True)
    return np.array(rows, float), np.array(labels), lesions


def source_only_auroc(spec):
    traits, labels, lesions = technical_traits(spec)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    scores = cross_val_predict(model, traits, labels, groups=lesions, cv=GroupKFold(4), method="predict_proba")
    if len(spec.labels) == 2:
        return roc_auc_score(labels == spec.labels[1], scores[:, 1])
    return roc_auc_score(labels, scores, multi_class="ovr")


@pytest.mark.slow
def test_without_a_confound_nothing_technical_tells_the_label():
    assert source_only_auroc(SampleSpec(space="binary", count=500, size=32, balanced=True, seed=2)) < 0.60
    assert source_only_auroc(SampleSpec(space="ham7", count=500, size=32, balanced=True, seed=2)) < 0.60


@pytest.mark.slow
@pytest.mark.parametrize("aspect", ["size", "quality", "border", "name"])
def test_each_planted_confound_betrays_the_label(aspect):
    assert source_only_auroc(SampleSpec(space="binary", count=120, size=48, balanced=True, confound=(aspect,))) > 0.80


def test_skin_tone_and_artefacts_do_not_depend_on_the_label():
    draws = {label: [draw_lesion(label, seed, 32) for seed in range(50)] for label in ("nv", "mel")}
    assert [lesion.fitzpatrick for lesion in draws["nv"]] == [lesion.fitzpatrick for lesion in draws["mel"]]
    assert [lesion.artefacts for lesion in draws["nv"]] == [lesion.artefacts for lesion in draws["mel"]]


@pytest.mark.slow
def test_the_classes_can_be_learnt_but_not_from_their_mean_colour():
    spec = SampleSpec(space="ham7", count=420, size=48, balanced=True)
    images = plan_sample_set(spec).images
    pixels = [draw_planned(spec, image)[0] for image in images]
    labels = [image.label for image in images]

    def score(features):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        return balanced_accuracy_score(labels, cross_val_predict(model, np.array(features), labels, cv=3))

    thumbnails = [np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BOX)).ravel() for image in pixels]
    assert score([image.mean((0, 1)) for image in pixels]) < 0.27
    assert 0.30 < score(thumbnails) < 0.65


# ---------------------------------------------------------------------------------------------------- planted flaws


@pytest.fixture(scope="module")
def flawed(tmp_path_factory):
    root = tmp_path_factory.mktemp("flawed") / "set"
    spec = SampleSpec(space="binary", count=40, size=48, duplicates=6, leaks=7, label_noise=0.2, seed=3)
    write_sample_set(root, spec)
    return (
        root,
        {fact["image_id"]: fact for fact in lines(root / "lesions.jsonl")},
        json.loads((root / "planted.json").read_text()),
    )


def picture(root, fact):
    with Image.open(root / fact["file"]) as image:
        return np.asarray(image.convert("RGB")).astype(float)


def test_exact_duplicates_are_the_same_bytes(flawed):
    root, facts, planted = flawed
    exact = [entry for entry in planted["duplicates"] + planted["leaks"] if entry["kind"] == "exact"]
    assert len(exact) == 2
    for entry in exact:
        assert (root / facts[entry["image"]]["file"]).read_bytes() == (root / facts[entry["of"]]["file"]).read_bytes()


def test_near_duplicates_show_the_same_pixels_altered_as_recorded(flawed):
    root, facts, planted = flawed
    undo = {
        "recompressed": lambda image: image,
        "flipped": lambda image: image[:, ::-1],
        "rotated": lambda image: np.rot90(image, -1),
    }
    for entry in planted["duplicates"] + planted["leaks"]:
        copy, original = (picture(root, facts[entry[key]]) for key in ("image", "of"))
        if entry["kind"] in undo:
            assert np.abs(undo[entry["kind"]](copy) - original).mean() < 9
        if entry["kind"] == "resized":
            assert copy.shape == (36, 36, 3)
        if entry["kind"] != "exact":
            assert (root / facts[entry["image"]]["file"]).read_bytes() != (root / facts[entry["of"]]["file"]).read_bytes()


def test_duplicates_stay_in_their_lesion_and_leaks_cross_lesions_and_splits(flawed):
    _, facts, planted = flawed
    assert (len(planted["duplicates"]), len(planted["leaks"])) == (6, 7)
    for entry in planted["duplicates"]:
        assert facts[entry["image"]]["lesion_id"] == entry["lesion"] == entry["of_lesion"]
        assert facts[entry["image"]]["file"].split("/")[0] == facts[entry["of"]]["file"].split("/")[0]
    for entry in planted["leaks"]:
        assert facts[entry["image"]]["lesion_id"] == entry["lesion"] != entry["of_lesion"]
        assert {facts[entry[key]]["file"].split("/")[0] for key in ("image", "of")} in ({"train", "test"}, {"train", "val"})


def test_label_noise_is_recorded_image_by_image(flawed):
    _, facts, planted = flawed
    wrong = {entry["image"]: entry for entry in planted["label_noise"]}
    assert 0 < len(wrong) < 30
    for image_id, fact in facts.items():
        true = "benign" if fact["diagnosis_drawn"] in ("nv", "bkl", "df", "vasc") else "malignant"
        assert (fact["label"] != true) == (image_id in wrong)
        if image_id in wrong:
            assert (wrong[image_id]["recorded"], wrong[image_id]["true"]) == (fact["label"], true)


def test_all_views_of_a_lesion_get_the_same_wrong_label():
    images = plan_sample_set(SampleSpec(count=300, label_noise=0.5)).images
    labels = {}
    for image in images:
        labels.setdefault(image.lesion_id, set()).add(image.label)
    assert all(len(recorded) == 1 for recorded in labels.values())
    assert 0.35 < np.mean([image.label != image.drawn_label for image in images]) < 0.65


def test_a_confound_is_recorded_with_its_sources():
    plan = plan_sample_set(SampleSpec(space="binary", count=200, confound=("quality",), size=64))
    record = plan.planted["confound"]
    assert record["aspects"] == ["quality"]
    assert set(record["images"]) == {image.image_id for image in plan.images}
    assert {source["border"] for source in record["sources"].values()} == {None}
    own = np.mean([image.clinic == f"source_{('benign', 'malignant').index(image.label)}" for image in plan.images])
    assert 0.9 < own < 1


def test_planting_moves_none_of_the_drawn_images():
    plain = SampleSpec(count=20, seed=5)
    assert plan_sample_set(replace(plain, duplicates=4, leaks=4)).images[:20] == plan_sample_set(plain).images


# --------------------------------------------------------------------------------------------------------- writing


def test_the_ham10000_layout_is_that_of_the_original(tmp_path):
    written = write_sample_set(tmp_path / "set", SampleSpec(count=30, size=(48, 36)))
    rows = list(csv.DictReader((tmp_path / "set" / "HAM10000_metadata.csv").open()))
    assert list(rows[0]) == ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
    assert {row["image_id"] for row in rows} == {path.stem for path in (tmp_path / "set" / "HAM10000_images").iterdir()}
    assert {row["localization"] for row in rows} <= {*LOCALIZATIONS, "unknown"}
    assert (written.images, sum(written.labels.values())) == (30, 30)
    for row in rows:
        with Image.open(written.masks / f"{row['image_id']}_segmentation.png") as mask:
            assert (mask.size, mask.mode) == ((48, 36), "L")
            assert set(np.unique(mask)) == {0, 255}


def test_the_isic2019_layout_is_one_hot_with_metadata(tmp_path):
    write_sample_set(tmp_path / "set", SampleSpec.for_classes(8, count=30, size=32))
    truth = list(csv.reader((tmp_path / "set" / "ISIC_2019_Training_GroundTruth.csv").open()))
    assert truth[0] == ["image", "MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
    assert all(sum(map(float, row[1:])) == 1 for row in truth[1:])
    facts = {fact["image_id"]: fact["label"].upper() for fact in lines(tmp_path / "set" / "lesions.jsonl")}
    assert all(truth[0][row.index("1.0")] == facts[row[0]] for row in truth[1:])
    metadata = list(csv.DictReader((tmp_path / "set" / "ISIC_2019_Training_Metadata.csv").open()))
    assert list(metadata[0]) == ["image", "age_approx", "anatom_site_general", "lesion_id", "sex"]


def test_the_clinical_tree_bears_the_clinic_s_folder_names(tmp_path):
    write_sample_set(tmp_path / "set", SampleSpec.for_classes(6, count=60, size=32))
    folders = {path.relative_to(tmp_path / "set").parent.as_posix() for path in (tmp_path / "set").rglob("*.jpg")}
    names = {"Enfeksiyonel", "Ekzama", "Akne", "Pigment", "Benign", "Malign"}
    assert folders == {f"{split}/{name}" for split in ("train", "val", "test") for name in names}


@pytest.mark.parametrize("layout", ["splits", "folders"])
def test_in_a_tree_of_classes_masks_lie_where_no_reader_takes_them_for_a_class(tmp_path, layout):
    written = write_sample_set(tmp_path / "set", SampleSpec(space="binary", count=6, size=32, layout=layout))
    visible = [path for path in (tmp_path / "set").iterdir() if path.is_dir() and not path.name.startswith(".")]
    assert {path.name for path in visible} <= {"train", "val", "test", "benign", "malignant"}
    assert len(list(written.masks.glob("*_segmentation.png"))) == 6


def test_the_readme_says_plainly_that_it_is_synthetic(tmp_path):
    write_sample_set(tmp_path / "set", SampleSpec(count=1, size=32))
    first = (tmp_path / "set" / "README.txt").read_text().splitlines()[0]
    assert "SYNTHETIC" in first


def test_the_same_spec_gives_the_same_bytes_whatever_the_number_of_processes(tmp_path):
    spec = SampleSpec(count=20, size=40, duplicates=3, seed=9)
    write_sample_set(tmp_path / "one", spec)
    write_sample_set(tmp_path / "two", spec, processes=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_an_interrupted_run_is_repeated_without_drawing_again_what_is_there(tmp_path, monkeypatch):
    spec, root = SampleSpec(count=10, size=32), tmp_path / "set"
    write_sample_set(tmp_path / "whole", spec)

    class Killed(Exception):
        pass

    def killed_at_five(done, total):
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        write_sample_set(root, spec, progress=killed_at_five)
    (root / "HAM10000_images" / "ISIC_0000000.jpg.part").write_bytes(b"half")
    drawn, module = [], sys.modules["lesion_hub.data.synthetic.write"]
    encode = module.encode_planned
    monkeypatch.setattr(module, "encode_planned", lambda *task: drawn.append(task) or encode(*task))
    write_sample_set(root, spec)
    assert len(drawn) == 5
    (root / "HAM10000_images" / "ISIC_0000000.jpg.part").unlink()
    assert contents(root) == contents(tmp_path / "whole")


def test_progress_counts_every_image(tmp_path):
    seen = []
    write_sample_set(tmp_path / "set", SampleSpec(count=4, size=32, duplicates=1), progress=lambda *step: seen.append(step))
    assert seen == [(number, 5) for number in range(1, 6)]


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match=r"mine\.txt"):
        write_sample_set(tmp_path, SampleSpec(count=1, size=32))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    write_sample_set(tmp_path / "set", SampleSpec(count=2, size=32))
    before = contents(tmp_path / "set")
    with pytest.raises(DataError, match="another spec"):
        write_sample_set(tmp_path / "set", SampleSpec(count=3, size=32))
    assert contents(tmp_path / "set") == before


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device", str(self))

    spec, root = SampleSpec(count=1, size=32), tmp_path / "set"
    write_sample_set(root, spec)
    (root / "README.txt").unlink()
    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(DataError, match="No space left") as caught:
        write_sample_set(root, spec)
    assert str(root) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_picture_without_its_mask_is_drawn_again(tmp_path):
    spec = SampleSpec(count=1, size=32)
    written = write_sample_set(tmp_path / "set", spec)
    mask = next(written.masks.iterdir())
    mask.unlink()
    _write_image(tmp_path / "set", spec, plan_sample_set(spec).images[0], None)
    assert mask.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"space": "ham"}, "did you mean 'ham7'"),
        ({"layout": "isic2020"}, "did you mean 'isic2019'"),
        ({"layout": "isic2019"}, "holds isic8 labels, not ham7"),
        ({"confound": ("sizes",)}, "did you mean 'size'"),
        ({"count": 0}, "count 0"),
        ({"size": 16}, "16x16"),
        ({"size": (600, 2000)}, "600x2000"),
        ({"seed": -3}, "seed -3"),
        ({"leaks": -1}, "leaks -1"),
        ({"label_noise": 1.5}, "label_noise 1.5"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_in_one_line(options, words):
    with pytest.raises(DataError, match=words) as caught:
        SampleSpec(**options)
    assert "\n" not in str(caught.value)


def test_only_known_numbers_of_classes_have_a_sample_set():
    with pytest.raises(DataError, match="5 classes"):
        SampleSpec.for_classes(5)


def test_the_generator_imports_neither_torch_nor_datasets():
    code = "import sys, lesion_hub.data.synthetic, lesion_hub.data.corruptions; print({'torch', 'datasets'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
