"""A card is never more permissive than the data behind the weights, unless that is forced."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_hub.errors import StoreError
from lesion_hub.hub import store
from lesion_hub.hub.licences import _TERMS, check_licence, citations, strictest
from tests.hub.publishable import refused, write_ensemble

NC = [("HAM10000", "cc-by-nc-4.0")]
licences = st.sampled_from(sorted(_TERMS))


@pytest.mark.parametrize("card", ["mit", "apache-2.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"])
def test_a_permissive_card_over_non_commercial_data_is_refused(card):
    with refused(card, "HAM10000", "non-commercial use", "cc-by-nc-4.0"):
        check_licence(card, NC)


@pytest.mark.parametrize("card", ["cc-by-nc-4.0", "CC-BY-NC-4.0", "cc-by-nc-sa-4.0"])
def test_a_card_that_keeps_the_terms_passes(card):
    check_licence(card, NC)


@given(licences)
def test_every_licence_may_follow_itself_and_the_public_domain(licence):
    check_licence(licence, [("same", licence), ("free", "cc0-1.0")])


@given(licences, licences, licences)
def test_what_may_follow_a_may_follow_what_a_may_follow(a, b, c):
    def follows(card: str, data: str) -> bool:
        try:
            check_licence(card, [("set", data)])
        except StoreError:
            return False
        return True

    assert follows(c, a) or not (follows(b, a) and follows(c, b))


def test_the_strictest_of_several_sources_counts():
    with refused("Fitzpatrick17k", "share-alike"):
        check_licence("cc-by-nc-4.0", [*NC, ("Fitzpatrick17k", "cc-by-nc-sa-4.0")])


def test_a_card_without_licence_and_an_unknown_one_are_refused():
    with refused("states no licence"):
        check_licence(None, [])
    with refused("'my-own'", "the card", "cc-by-nc-4.0"):
        check_licence("my-own", NC)
    with refused("'secret'", "data set A"):
        check_licence("mit", [("A", "secret")])


def test_publishing_asks_the_card_and_can_be_forced(make_folder, tmp_path):
    folder = make_folder(licence="mit")
    with refused("mit", "HAM10000"):
        store.publish(folder, "m", version="1.0.0", notes="n", registry=tmp_path)
    assert not (tmp_path / "m" / "v1.0.0").exists()
    store.publish(folder, "m", version="1.0.0", notes="n", registry=tmp_path, force_licence=True)
    assert (tmp_path / "m" / "v1.0.0").is_dir()


def test_an_ensemble_is_bound_by_the_data_of_its_members(make_folder, tmp_path):
    member = make_folder()
    store.publish(member, "m", version="1.0.0", notes="n", registry=tmp_path)
    ensemble = write_ensemble(tmp_path / "run-e", {"m": member}, licence="mit")
    with refused("mit", "HAM10000"):
        store.publish(ensemble, "e", version="1.0.0", notes="n", registry=tmp_path)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["cc0-1.0", "cc-by-4.0"], "cc-by-4.0"),
        (["apache-2.0", "cc-by-nc-4.0", "cc-by-sa-4.0"], "cc-by-nc-sa-4.0"),
        (["cc-by-nc-4.0", "my-own-terms"], "my-own-terms"),
    ],
)
def test_weights_inherit_every_term(given, expected):
    assert strictest(given) == strictest(given[::-1]) == expected


def test_data_sets_are_cited_once():
    assert len(citations(["HAM10000", "ham10000"])) == 1
    assert {text.split()[0] for text in citations(["ISIC 2019"])} == {"Tschandl,", "Codella", "Combalia"}
    assert citations(["mine"]) == []
