"""Duplicates are found however a picture was changed, strangers are left alone, and nothing grows quadratically."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from lesion_hub.data.duplicates import Fingerprints, find_duplicates, find_duplicates_between, fingerprint, unite
from lesion_hub.data.duplicates.alignment import identity_maps, refine, turned
from lesion_hub.data.duplicates.fingerprints import THUMB, descriptors
from lesion_hub.data.duplicates.search import FAST, THOROUGH, components, listed_pairs, near_candidates
from lesion_hub.data.images import load_rgb
from lesion_hub.errors import DataError
from tests.data.pictures import jpeg, spot

COUNT = 24
Change = Callable[[Image.Image], Image.Image]


def _trimmed(share: float) -> Change:
    return lambda image: image.crop((0, 0, round(image.width * (1 - share)), round(image.height * (1 - share))))


def _scaled(factor: float) -> Change:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)))


CHANGES: dict[str, Change] = {
    "half size": _scaled(0.5),
    "double size": _scaled(2),
    "heavily compressed": lambda image: image,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "upside down": lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "quarter turn": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "half turn": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "three quarter turn": lambda image: image.transpose(Image.Transpose.ROTATE_270),
    "trimmed by 5 %": _trimmed(0.05),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "squashed to a square": lambda image: image.resize((256, 256)),
    "all at once": lambda image: ImageEnhance.Brightness(
        _scaled(0.7)(_trimmed(0.05)(image).transpose(Image.Transpose.TRANSVERSE))
    ).enhance(0.92),
}


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [spot(seed) for seed in range(COUNT)]


@pytest.fixture(scope="module")
def prints(pictures: list[Image.Image]) -> Fingerprints:
    return fingerprint([jpeg(picture, 95) for picture in pictures])


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found(change: str, pictures: list[Image.Image], prints: Fingerprints) -> None:
    copies = fingerprint([jpeg(CHANGES[change](picture), 40) for picture in pictures])
    found = find_duplicates_between(copies, prints)
    assert set(found.near) == {(place, place) for place in range(COUNT)}
    assert not found.exact


def test_distinct_pictures_are_not_taken_for_one(prints: Fingerprints) -> None:
    found = find_duplicates(prints)
    assert found.exact == () and found.near == ()
    assert len(set(found.clusters.tolist())) == COUNT


def test_the_order_of_images_does_not_matter(pictures: list[Image.Image]) -> None:
    # Trimmed so far that some verdicts are close.
    sources = [jpeg(picture) for picture in pictures[:10]] + [jpeg(_trimmed(0.12)(picture), 40) for picture in pictures[:10]]
    order = np.random.default_rng(0).permutation(len(sources))
    straight = find_duplicates(fingerprint(sources))
    shuffled = find_duplicates(fingerprint([sources[row] for row in order]))
    back = {tuple(sorted((int(order[a]), int(order[b])))) for a, b in shuffled.near}
    assert straight.near and back == set(straight.near)


def test_strangers_in_the_same_frame_are_not_taken_for_one() -> None:
    framed = []
    for seed in range(12):
        picture = spot(seed)
        ImageDraw.Draw(picture).rectangle((0, 0, picture.width - 1, picture.height - 1), outline="black", width=6)
        framed.append(jpeg(picture))
    assert find_duplicates(fingerprint(framed)).near == ()


def test_pictures_without_any_detail_match_only_exactly() -> None:
    flat = [jpeg(Image.new("RGB", (90, 80), color)) for color in ("#905040", "#905040", "#905041")]
    found = find_duplicates(fingerprint(flat))
    assert found.exact == ((0, 1),) and found.near == ()


def test_the_same_file_and_the_same_pixels_are_exact_duplicates(tmp_path: Path) -> None:
    picture = spot(1)
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.bmp")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes())
    found = find_duplicates(fingerprint([str(tmp_path / name) for name in ("a.png", "b.bmp", "c.png")]))
    assert found.exact == ((0, 1), (0, 2), (1, 2)) and found.near == ()
    assert found.clusters.tolist() == [0, 0, 0]


def test_a_near_copy_joins_the_cluster_of_exact_ones() -> None:
    picture = spot(2)
    sources = [jpeg(picture), jpeg(picture), jpeg(picture.transpose(Image.Transpose.ROTATE_180), 60), jpeg(spot(3))]
    found = find_duplicates(fingerprint(sources))
    assert found.exact == ((0, 1),) and found.near == ((0, 2),)
    assert found.clusters.tolist() == [0, 0, 0, 1]


def test_thousands_of_copies_of_one_picture_take_no_longer_than_they_should() -> None:
    one = fingerprint([jpeg(spot(4))])
    copies = Fingerprints(*(np.repeat(column, 20_000, axis=0) for column in (one.file, one.pixels, one.gray, one.terms)))
    started = time.perf_counter()
    found = find_duplicates(copies)
    assert time.perf_counter() - started < 10
    assert len(found.exact) == 19_999 and set(found.clusters.tolist()) == {0}


def test_unreadable_pictures_are_listed_and_left_out(tmp_path: Path) -> None:
    sources = [jpeg(spot(5)), b"", str(tmp_path / "gone.jpg"), jpeg(spot(5))]
    prints = fingerprint(sources)
    assert sorted(prints.failures) == [1, 2]
    assert "gone.jpg" in prints.failures[2]
    assert find_duplicates(prints).exact == ((0, 3),)


def test_stored_fingerprints_are_reused_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{seed}.jpg" for seed in range(3)]
    for seed, path in enumerate(paths):
        path.write_bytes(jpeg(spot(seed)))
    store = tmp_path / "prints.npz"
    sources = [str(path) for path in paths]
    first = fingerprint(sources, store=store)
    paths[1].write_bytes(jpeg(spot(7)))
    read: list[str] = []
    module = "lesion_hub.data.duplicates.fingerprints"
    monkeypatch.setattr(f"{module}.load_rgb", lambda encoded, name: read.append(name) or load_rgb(encoded, name=name))
    again = fingerprint(sources, store=store)
    assert read == [str(paths[1])]
    assert again.pixels[0] == first.pixels[0] and again.pixels[1] != first.pixels[1]
    np.testing.assert_array_equal(again.terms[[0, 2]], first.terms[[0, 2]])


def test_a_damaged_store_is_named(tmp_path: Path) -> None:
    store = tmp_path / "prints.npz"
    store.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"prints\.npz: not a store of fingerprints; delete it"):
        fingerprint([jpeg(spot(0))], store=store)


@pytest.mark.slow
def test_a_process_pool_gives_the_same_in_the_same_order() -> None:
    sources = [jpeg(spot(seed % 5, (64, 64))) for seed in range(300)]
    seen: list[tuple[int, int]] = []
    pooled = fingerprint(sources, workers=2, progress=lambda done, total: seen.append((done, total)))
    alone = fingerprint(sources, workers=1)
    np.testing.assert_array_equal(pooled.pixels, alone.pixels)
    np.testing.assert_array_equal(pooled.terms, alone.terms)
    assert seen[-1] == (300, 300)


@pytest.mark.parametrize("symmetry", range(8))
def test_descriptors_do_not_see_the_symmetries_of_the_square(symmetry: int) -> None:
    thumb = np.asarray(spot(6).resize((THUMB, THUMB)))
    moved = np.moveaxis(turned(np.moveaxis(thumb, -1, 0), symmetry), 0, -1)
    np.testing.assert_allclose(descriptors(moved[None]), descriptors(thumb[None]), atol=1e-2)


def test_alignment_recovers_a_known_map() -> None:
    field = np.asarray(spot(8).convert("L").resize((THUMB, THUMB)), np.float32)[None]
    inner = np.asarray(
        Image.fromarray(field[0]).resize((THUMB, THUMB), Image.Resampling.BICUBIC, box=(2, 1, 62, 63)), np.float32
    )[None]
    found = refine(inner, field, identity_maps(1), 12)[0]
    np.testing.assert_allclose(found, [[60 / 64, 0, 0], [0, 62 / 64, 0]], atol=0.01)


def test_planted_neighbours_are_found_among_many() -> None:
    rng = np.random.default_rng(0)
    terms = (rng.standard_normal((4000, 20)) * 8).astype(np.float32)
    terms[:200] = terms[200:400] + rng.standard_normal((200, 20)).astype(np.float32)
    found = {tuple(pair) for pair in near_candidates(terms).tolist()}
    assert {(row, row + 200) for row in range(200)} <= found
    fast = {tuple(pair) for pair in near_candidates(terms, search=FAST).tolist()}
    assert len({(row, row + 200) for row in range(200)} - fast) <= 2


def test_candidates_stay_linear_when_most_points_coincide() -> None:
    terms = np.zeros((20_000, 20), np.float32)
    terms[:100] = np.random.default_rng(0).standard_normal((100, 20))
    assert len(near_candidates(terms)) < 20_000 + 100 * THOROUGH.neighbours


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30), st.randoms())
def test_components_do_not_depend_on_the_order_of_pairs(pairs: list[tuple[int, int]], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = [pair[::-1] for pair in pairs]
    random.shuffle(shuffled)
    found = components(20, np.array(pairs, int).reshape(-1, 2))
    assert found.tolist() == components(20, np.array(shuffled, int).reshape(-1, 2)).tolist()
    assert all(found[a] == found[b] for a, b in pairs)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20))
def test_united_groupings_cut_neither(rows: list[tuple[int, int]]) -> None:
    united = unite(*zip(*rows, strict=True))
    for grouping in zip(*rows, strict=True):
        for group in set(grouping):
            assert len({united[row] for row, own in enumerate(grouping) if own == group}) == 1


def test_pairs_of_a_large_group_are_listed_with_its_first_member_only() -> None:
    assert listed_pairs(np.zeros(12, int)) == [(0, other) for other in range(1, 12)]
    assert len(listed_pairs(np.zeros(10, int))) == 45


def test_a_store_that_cannot_be_written_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    prints = fingerprint([jpeg(spot(0))], store=tmp_path / "prints.npz")
    assert prints.readable.all() and "prints.npz: cannot be written (No space left on device)" in caplog.text
    assert not list(tmp_path.iterdir())
