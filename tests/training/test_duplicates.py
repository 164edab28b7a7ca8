"""Near-duplicates: fingerprints, the index, pairs and groups."""

import io
from collections.abc import Callable

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps

from tests.training.conftest import on_white, stamps
from training.duplicates import (
    HASH_DISTANCE,
    DuplicateIndex,
    Fingerprint,
    difference_hash,
    fingerprint,
    group_by_pairs,
    near_duplicate_pairs,
)


def scene(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """An image with structure at several scales, different for every seed."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        (width, height)
    )
    draw = ImageDraw.Draw(coarse)
    for _ in range(12):
        x, y = int(random.integers(0, width)), int(random.integers(0, height))
        colour = tuple(int(c) for c in random.integers(0, 256, 3))
        draw.ellipse(
            (x, y, x + int(random.integers(10, 80)), y + int(random.integers(10, 80))), fill=colour
        )
    return coarse


def recompressed(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=25)
    return Image.open(stream).convert("RGB")


def captioned(image: Image.Image) -> Image.Image:
    copy = image.copy()
    ImageDraw.Draw(copy).rectangle(
        (0, int(copy.height * 0.88), copy.width, copy.height), fill=(20, 20, 20)
    )
    return copy


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half size": lambda p: p.resize((p.width // 2, p.height // 2)),
    "stretched": lambda p: p.resize((p.width, p.height * 3 // 4)),
    "recompressed": recompressed,
    "mirrored": ImageOps.mirror,
    "captioned": captioned,
}


def test_the_hash_agrees_with_image_hash() -> None:
    images = [scene(seed) for seed in range(20)] + [
        on_white(path) for path in stamps("vehicles")[:20]
    ]
    assert [difference_hash(p) for p in images] == [
        int(str(imagehash.dhash(p)), 16) for p in images
    ]


@pytest.mark.parametrize("name", EDITS)
def test_a_near_duplicate_is_found_under_the_key_of_its_original(name: str) -> None:
    index = DuplicateIndex()
    for seed in range(30):
        index.add(f"picture {seed}", fingerprint(scene(seed)))
    found = [index.find(fingerprint(EDITS[name](scene(seed)))) for seed in range(30)]
    assert found == [f"picture {seed}" for seed in range(30)]


def test_different_images_are_no_duplicates() -> None:
    assert not list(near_duplicate_pairs([fingerprint(scene(seed)) for seed in range(100)]))


def test_cut_outs_on_white_whose_hashes_are_close_are_not_merged() -> None:
    folders = (
        "animals",
        "plants",
        "food",
        "vehicles",
        "household",
        "hobbies",
        "sports",
        "clothes",
        "town",
    )
    paths = stamps(*folders)
    prints = [fingerprint(on_white(path)) for path in paths]
    hashes = [known.hash for known in prints]
    proposed = sum(
        (one ^ other).bit_count() <= HASH_DISTANCE
        for i, one in enumerate(hashes)
        for other in hashes[:i]
    )
    verified = {
        frozenset((paths[one].stem, paths[other].stem))
        for one, other in near_duplicate_pairs(prints)
    }
    assert frozenset(("dumper", "dumper_mirror")) in verified
    assert not verified & {frozenset(pair) for pair in DIFFERENT}
    assert len(verified) <= 9 < 20 <= proposed


DIFFERENT = (
    ("hammer", "wrench"),
    ("blackbird", "rainbow-lorikeet"),
    ("guitar2", "hospital"),
    ("greenflag", "redflag"),
)


def test_duplicates_of_cut_outs_on_white_are_found() -> None:
    images = [on_white(path) for path in stamps("animals/mammals")[:30]]
    index = DuplicateIndex()
    for number, image in enumerate(images):
        index.add(str(number), fingerprint(image))
    for name in ("half size", "recompressed", "mirrored"):
        found = [index.find(fingerprint(EDITS[name](image))) for image in images]
        assert found == [str(number) for number in range(30)], name


def test_plain_images_are_duplicates_only_when_their_colours_agree() -> None:
    index = DuplicateIndex()
    index.add("red", fingerprint(Image.new("RGB", (50, 40), (200, 0, 0))))
    assert index.find(fingerprint(Image.new("RGB", (80, 80), (202, 1, 0)))) == "red"
    assert index.find(fingerprint(Image.new("RGB", (80, 80), (250, 250, 250)))) is None
    assert index.find(fingerprint(Image.new("RGB", (1, 1), (0, 0, 0)))) is None


def test_thumbnails_that_another_version_kept_are_refused() -> None:
    known = fingerprint(scene(1))
    with pytest.raises(ValueError, match="layout"):
        Fingerprint(known.hash, known.mirror_hash, known.thumbnails[:-768])


def test_a_discarded_image_is_not_found_and_the_others_still_are() -> None:
    index = DuplicateIndex()
    prints = {str(seed): fingerprint(scene(seed)) for seed in range(200)}
    for key, known in prints.items():
        index.add(key, known)
    for key in list(prints)[:150]:
        index.discard(key)
        index.discard(key)
    assert len(index) == 50
    assert [index.find(known) for known in prints.values()] == [None] * 150 + list(prints)[150:]


def test_a_key_added_again_stands_for_the_new_image() -> None:
    index = DuplicateIndex()
    index.add("key", fingerprint(scene(1)))
    index.add("key", fingerprint(scene(2)))
    assert index.find(fingerprint(scene(1))) is None
    assert index.find(fingerprint(scene(2))) == "key"
    assert len(index) == 1


def test_embeddings_join_what_the_hash_cannot_see() -> None:
    prints = [fingerprint(scene(seed)) for seed in range(6)]
    random = np.random.default_rng(0)
    embeddings = random.standard_normal((6, 64), dtype=np.float32)
    embeddings[4] = embeddings[1] * 3 + 0.01 * random.standard_normal(64, dtype=np.float32)
    assert group_by_pairs(6, near_duplicate_pairs(prints)) == [0, 1, 2, 3, 4, 5]
    assert group_by_pairs(6, near_duplicate_pairs(prints, embeddings)) == [0, 1, 2, 3, 1, 4]


def test_embeddings_that_are_all_alike_join_nothing() -> None:
    random = np.random.default_rng(0)
    embeddings = 10 + random.random((40, 64), dtype=np.float32)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    assert (unit @ unit.T).min() > 0.99
    prints = [fingerprint(scene(seed)) for seed in range(40)]
    assert not list(near_duplicate_pairs(prints, embeddings))


def fabric(seed: int, coarse: bool = False) -> Image.Image:
    """A periodic texture that is nearly plain in a thumbnail, dyed in one of many like colours."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:256, :256]
    period = random.uniform(6, 9) * (1.5 if coarse else 1)
    turn = random.uniform(-0.1, 0.1)
    warp = np.sin(2 * np.pi * (columns + turn * rows) / period)
    weft = np.sin(2 * np.pi * (rows - turn * columns) / period)
    brightness = 128 + 50 * warp * weft + random.normal(0, 15, (256, 256))
    dyed = brightness[..., None] * random.uniform(0.8, 1.2, 3)
    return Image.fromarray(dyed.clip(0, 255).astype(np.uint8))


def test_fabrics_of_like_colours_are_no_duplicates() -> None:
    fabrics = [fabric(seed, coarse=seed % 2 == 1) for seed in range(80)]
    assert not list(near_duplicate_pairs([fingerprint(image) for image in fabrics]))


@pytest.mark.parametrize("name", ["half size", "mirrored", "stretched"])
def test_a_copy_of_a_fabric_is_found(name: str) -> None:
    fabrics = [fabric(seed) for seed in range(20)]
    copies = [EDITS[name](image) for image in fabrics]
    pairs = set(near_duplicate_pairs([fingerprint(image) for image in fabrics + copies]))
    found = sum((number, 20 + number) in pairs for number in range(20))
    assert found >= 18
    assert len(pairs) == found


def test_a_framed_copy_of_a_pale_image_is_found() -> None:
    pale = [Image.blend(Image.new("RGB", (320, 240), "grey"), scene(n), 0.15) for n in range(20)]
    framed = [ImageOps.expand(image, 13, (40, 30, 25)) for image in pale]
    index = DuplicateIndex()
    for number, image in enumerate(pale):
        index.add(str(number), fingerprint(image))
    found = [index.find(fingerprint(image)) for image in framed]
    assert found == [str(number) for number in range(20)]


def test_where_all_images_look_alike_only_very_close_embeddings_join() -> None:
    random = np.random.default_rng(0)
    kinds = np.repeat(random.standard_normal((4, 512)), 20, axis=0)
    embeddings = kinds + 0.28 * random.standard_normal((80, 512))
    embeddings[5] = embeddings[4] + 0.02 * random.standard_normal(512)
    prints = [fingerprint(scene(seed)) for seed in range(80)]
    assert list(near_duplicate_pairs(prints, embeddings.astype(np.float32))) == [(4, 5)]


def test_plain_images_are_no_duplicates_where_their_embeddings_differ() -> None:
    prints = [fingerprint(Image.new("RGB", (64, 64), (150, 150, 150)))] * 4
    embeddings = np.eye(4, 64, dtype=np.float32)
    embeddings[3] = embeddings[2]
    assert len(list(near_duplicate_pairs(prints))) == 6
    assert list(near_duplicate_pairs(prints, embeddings)) == [(2, 3)]


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20))
def test_images_share_a_group_exactly_when_a_chain_of_pairs_links_them(
    pairs: list[tuple[int, int]],
) -> None:
    groups = group_by_pairs(12, pairs)
    linked = np.eye(12, dtype=bool)
    for one, other in pairs:
        linked[one, other] = linked[other, one] = True
    for _ in range(4):
        linked = (linked.astype(int) @ linked.astype(int)) > 0
    assert (np.equal.outer(groups, groups) == linked).all()
    assert list(dict.fromkeys(groups)) == list(range(max(groups) + 1))
