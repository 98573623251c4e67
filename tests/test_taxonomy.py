"""The table of diagnoses, the label spaces and the maps between them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesion_hub.diagnosis_names import ALIASES, AMBIGUOUS, KINDS, slug
from lesion_hub.errors import TaxonomyError
from lesion_hub.taxonomy import (
    ABSTAIN,
    DIAGNOSES,
    LABEL_SPACES,
    LabelSpace,
    canonical_sex,
    canonical_site,
    finest_common,
    label_space,
    resolve,
    space_from_labels,
    space_from_names,
)

SPACES = list(LABEL_SPACES.values())
MAPS = [(a.name, b.name) for a in SPACES for b in SPACES if a.maps_to(b)]


def test_label_orders_are_those_of_the_data_sets():
    assert label_space("ham7").labels == ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
    assert label_space("isic8").labels == ("mel", "nv", "bcc", "ak", "bkl", "df", "vasc", "scc")
    assert label_space("isic9").labels[-1] == "unk"
    assert label_space("binary").labels == ("benign", "malignant")


def test_every_diagnosis_is_either_benign_or_malignant_or_open_in_both_binary_conventions():
    entities = {entity for row in DIAGNOSES.values() for entity in row.entities} - {"unk"}
    for name in ("binary", "binary_ak_benign"):
        benign, malignant = label_space(name).rows
        assert benign.entities | malignant.entities == entities
        assert not benign.entities & malignant.entities


def test_the_two_conventions_differ_in_actinic_keratosis_alone():
    isic8, ak = label_space("isic8"), label_space("isic8").index("ak")
    strict = isic8.map_to("binary").labels(range(8))
    lenient = isic8.map_to("binary_ak_benign").labels(range(8))
    assert np.flatnonzero(strict != lenient).tolist() == [ak]
    assert strict[ak] == label_space("binary").index("malignant")


def test_eight_to_seven_sums_ak_and_scc():
    p = np.eye(8)
    mapped = label_space("isic8").map_to("ham7").probabilities(p)
    akiec = label_space("ham7").index("akiec")
    assert mapped[:, akiec].tolist() == [0, 0, 0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("source", "target"), [("ham7", "isic8"), ("binary", "ham7"), ("ham7", "binary_ak_benign"), ("ham7", "isic2017")]
)
def test_what_would_have_to_be_split_is_refused_in_one_line(source, target):
    with pytest.raises(TaxonomyError) as caught:
        label_space(source).map_to(target)
    assert "\n" not in str(caught.value)
    assert source in str(caught.value)
    assert target in str(caught.value)


@pytest.mark.parametrize(("source", "target"), MAPS)
@given(data=st.data())
def test_probability_mass_is_conserved(source, target, data):
    space = label_space(source)
    raw = data.draw(arrays(np.float64, (5, len(space)), elements=st.floats(0, 1)))
    mapped = space.map_to(target).probabilities(raw)
    assert mapped.shape == (5, len(label_space(target)))
    assert (mapped >= 0).all()
    np.testing.assert_allclose(mapped.sum(1), raw.sum(1), atol=1e-9)


@pytest.mark.parametrize(("source", "target"), MAPS)
def test_label_arrays_and_one_hot_probabilities_map_alike(source, target):
    mapping = label_space(source).map_to(target)
    labels = mapping.labels(np.arange(len(label_space(source))))
    one_hot = mapping.probabilities(np.eye(len(label_space(source))))
    for label, row in zip(labels, one_hot, strict=True):
        if label != ABSTAIN:
            assert row[label] == 1.0
        else:
            np.testing.assert_allclose(row, 1 / len(row))


def test_maps_compose():
    isic8 = label_space("isic8")
    direct = isic8.map_to("binary").matrix
    via_ham = isic8.map_to("ham7").matrix @ label_space("ham7").map_to("binary").matrix
    np.testing.assert_array_equal(direct, via_ham)


def test_unknown_abstains_and_conditions_the_rest():
    isic9 = label_space("isic9")
    mapping = isic9.map_to("binary")
    assert mapping.labels([isic9.index("unk"), ABSTAIN]).tolist() == [ABSTAIN, ABSTAIN]
    row = np.zeros(9)
    row[isic9.index("nv")], row[isic9.index("mel")], row[isic9.index("unk")] = 0.3, 0.1, 0.6
    np.testing.assert_allclose(mapping.probabilities(row), [0.75, 0.25])


def test_labels_outside_the_space_are_refused():
    with pytest.raises(TaxonomyError, match=r"0\.\.6"):
        label_space("ham7").map_to("binary").labels([7])
    with pytest.raises(TaxonomyError, match="7 columns"):
        label_space("ham7").map_to("binary").probabilities(np.ones((2, 8)))


def test_names_aliases_and_case_resolve():
    assert label_space("ham7").index("MEL") == 0
    assert label_space("isic2017").index("seborrheic_keratosis") == 1
    assert label_space("clinical6").index("Benign") == 4
    assert label_space("clinical6").index("Malign") == 5
    assert label_space("binary").index("Malignant") == 1
    with pytest.raises(TaxonomyError, match="did you mean 'bcc'"):
        label_space("ham7").index("bbc")
    with pytest.raises(TaxonomyError, match="did you mean 'ham7'"):
        label_space("ham8")


def test_folder_names_find_their_space():
    assert space_from_names(["malignant", "benign"]) == label_space("binary")
    assert space_from_names(["Enfeksiyonel", "Ekzama", "Akne", "Pigment", "Benign", "Malign"]) == label_space("clinical6")
    assert space_from_names(["AKIEC", "BCC", "BKL", "DF", "MEL", "NV", "VASC"]) == label_space("ham7")


def test_other_folders_make_a_custom_space():
    custom = space_from_names(["tinea", "vitiligo", "nv"])
    assert custom.labels == ("nv", "tinea", "vitiligo")
    assert not custom.maps_to("binary")
    assert space_from_names(["nv", "mel"]).map_to("binary").labels([0, 1]).tolist() == [1, 0]
    with pytest.raises(TaxonomyError, match="same label"):
        space_from_names(["Tinea", "tinea"])
    with pytest.raises(TaxonomyError, match="at least one"):
        space_from_names([])


def test_a_stored_space_must_keep_its_order():
    assert space_from_labels("ham7", label_space("ham7").labels) is label_space("ham7")
    with pytest.raises(TaxonomyError, match="order"):
        space_from_labels("ham7", tuple(reversed(label_space("ham7").labels)))
    assert space_from_labels("custom", ["tinea", "vitiligo"]) == space_from_names(["tinea", "vitiligo"])


@given(st.permutations(["isic8", "ham7", "isic9"]))
def test_members_of_several_spaces_meet_in_the_finest_common_one(names):
    assert finest_common(label_space(name) for name in names).name == "ham7"
    assert finest_common([label_space("isic8"), label_space("binary_ak_benign")]).name == "binary_ak_benign"


def test_spaces_with_nothing_in_common_are_refused():
    with pytest.raises(TaxonomyError, match="no label space holds"):
        finest_common([label_space("ham7"), LabelSpace("custom", space_from_names(["tinea", "vitiligo"]).rows)])


def test_sites_and_sexes_of_both_vocabularies():
    assert canonical_site("lower extremity") == canonical_site("Lower_Extremity") == "lower extremity"
    assert canonical_site("anterior torso") == canonical_site("chest") == "torso"
    assert canonical_site("acral") == canonical_site("palms/soles") == "palms/soles"
    assert canonical_site("unknown") is None
    assert canonical_site(float("nan")) is None
    assert canonical_sex("M") == "male"
    assert canonical_sex("") is None


# ------------------------------------------------------------------------------------------------ words of data sets


@pytest.mark.parametrize(
    ("word", "code"),
    [
        *(("melanoma", "mel"), ("MEL", "mel"), ("Melanom", "mel"), ("Mélanome", "mel"), ("Melanoma, NOS", "mel")),
        *(("melanocytic nevi", "nv"), ("Nävus", "nv"), ("NEV", "nv"), ("Naevus", "nv"), ("nevo melanocítico", "nv")),
        *(("basal cell carcinoma", "bcc"), ("Basal-Cell_Carcinoma", "bcc"), ("Basaliom", "bcc"), ("ACK", "ak"), ("SEK", "sk")),
        *(("Solar or actinic keratosis", "ak"), ("pigmented benign keratosis", "bkl"), ("Solar lentigo", "lentigo")),
        *(("KERATOSE SEBORRHEIQUE", "sk"), ("queratosis actínica", "ak"), ("carcinoma spinocellulare", "scc")),
        *(("blue nevus", "nv"), ("melanoma (in situ)", "mel"), ("Bowen's disease", "scc"), ("Atypical Nevus", "nv")),
    ],
)
def test_a_word_of_any_set_resolves_to_its_code(word, code):
    assert resolve(word).code == code


@pytest.mark.parametrize(
    "word", ["keratosis", "carcinoma", "other", "pigmented", "verruca", "atypical melanocytic proliferation"]
)
def test_a_word_of_several_meanings_says_so(word):
    found = resolve(word)
    assert found.diagnosis is None and found.code is None
    assert found.how.startswith("ambiguous: it ") or found.how.startswith("ambiguous: a pigmented")


def test_no_word_stands_for_two_diagnoses():
    """But those of the clinical six, which follow another convention inside their own space."""
    homes: dict[str, set[str]] = {}
    for table in (ALIASES, KINDS):
        for code, words in table.items():
            if code not in ("benign_pigmented", "clinical_malignant"):
                for word in (code, DIAGNOSES[code].name, *words):
                    homes.setdefault(slug(word), set()).add(code)
    assert {word: codes for word, codes in homes.items() if len(codes) > 1} == {}
    assert {slug(word) for word in AMBIGUOUS} & set(homes) <= {"pigmented", "pigmentary"}


def test_letters_of_other_scripts_keep_their_marks():
    assert slug("й") != slug("и")
    assert slug("が") != slug("か")


def test_full_names_make_a_custom_space_of_their_own_words_that_maps():
    space = space_from_names(["nevus", "Melanom", "basal cell carcinoma"])
    assert space.labels == ("Melanom", "basal cell carcinoma", "nevus")
    assert space.map_to("binary").indices == (1, 1, 0)
    assert space.map_to("ham7").indices == (0, 2, 1)
    assert space.index("mel") == space.index("melanoma") == 0
    assert finest_common([space, label_space("ham7")]).name == "ham7"
    assert space_from_labels("custom", space.labels) == space


def test_stored_labels_keep_their_words_and_places():
    labels = ("nevus", "Benign", "melanoma", "Lentigo")
    space = space_from_labels("custom", labels)
    assert space.labels == labels and space.descriptions == labels
    assert space.malignancy_map.indices == (0, 0, 1, 0)
    assert space.map_to(space).indices == (0, 1, 2, 3)


def test_a_finer_diagnosis_is_not_its_wider_one():
    space = space_from_names(["nevus", "blue nevus", "clark nevus", "melanoma"])
    assert space.map_to(space).indices == (0, 1, 2, 3)
    assert space.map_to("ham7").indices == (1, 1, 0, 1)
    with pytest.raises(TaxonomyError, match=r"'nv' .* is wider than 'blue nevus'"):
        space_from_names(["nv", "melanoma"]).map_to(space_from_names(["blue nevus", "melanoma"]))


def test_synonyms_are_one_label():
    with pytest.raises(TaxonomyError, match="'Melanom', 'melanoma' are the same label"):
        space_from_names(["melanoma", "Melanom", "nevus"])


def test_unknown_abstains_beside_full_names_and_a_word_of_no_table_leaves_malignancy_open():
    assert space_from_names(["melanoma", "nevus", "unknown"]).malignancy_map.indices == (1, 0, ABSTAIN)
    assert space_from_names(["melanoma", "nevus", "cyst"]).malignancy_map is None
    assert space_from_names(["melanoma", "benign"]).malignancy_map.indices == (0, 1)
    assert space_from_names(["gutartig", "bösartig"]).name == "binary"
