import itertools

import cv2
import numpy as np
import pytest
from conftest import a_clip, moving_images

from secondeye.dataset.duplicates import close_pairs, find_duplicates
from secondeye.dataset.perceptual_hash import hash_clip, hash_image, parse_hashes
from secondeye.dataset.schema import Clip


def distance(first: np.ndarray, second: np.ndarray) -> int:
    one, other = hash_image(first), hash_image(second)
    assert one is not None and other is not None
    return (one ^ other).bit_count()


def test_scaling_coding_and_grading_keep_the_hash() -> None:
    for seed in range(4):
        image = moving_images(1, 128, 224, seed)[0]
        small = cv2.resize(image, (112, 64), interpolation=cv2.INTER_AREA)
        coded = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1)
        for other in (small, coded, image // 2 + 40):
            assert distance(image, other) <= 6
        assert distance(image, moving_images(1, 128, 224, seed + 10)[0]) > 12


def test_a_hash_has_64_bits_and_ignores_brightness() -> None:
    image = moving_images(1, 64, 64)[0]
    value = hash_image(image)
    assert value is not None and value < 2**63 and value.bit_count() == 31
    assert hash_image(np.full((64, 64, 3), 90, np.uint8)) is None


def test_a_few_frames_are_hashed_and_flat_ones_skipped() -> None:
    images = list(moving_images(11, 64, 96))
    assert parse_hashes(hash_clip(images)).tolist() == [
        hash_image(images[place]) for place in (1, 3, 5, 7, 9)
    ]
    assert len(hash_clip(images[:1])) == 16
    assert hash_clip([np.zeros_like(image) for image in images]) == ""


@pytest.mark.parametrize("bits", [0, 1, 4, 8])
def test_exactly_the_pairs_within_the_bound_are_found(bits: int) -> None:
    rng = np.random.default_rng(bits)
    centres = rng.integers(0, 2**64, 20, np.uint64)
    flips = [sum(1 << int(b) for b in rng.choice(64, int(rng.integers(0, 12)), False)) for _ in range(300)]
    hashes = np.unique(rng.choice(centres, 300) ^ np.array(flips, np.uint64))
    films = rng.integers(-1, 5, len(hashes)).astype(np.int32)  # -1: of several films
    pairs = list(map(tuple, close_pairs(hashes, films, bits).tolist()))
    true = {
        (i, j)
        for i, j in itertools.combinations(range(len(hashes)), 2)
        if int(hashes[i] ^ hashes[j]).bit_count() <= bits and (films[i] != films[j] or films[i] == -1)
    }
    assert set(pairs) == true and len(pairs) == len(true) and (bits == 0 or true)


def with_hashes(name: str, film: str, values: list[int], stop: int = 10) -> Clip:
    return a_clip(name, film, stop=stop, perceptual_hash="".join(f"{value:016x}" for value in values))


def pairs_of(*clips: Clip) -> list[tuple[str, str]]:
    return [(first.id, second.id) for first, second in find_duplicates(clips, 8)]


def test_most_frames_of_the_shorter_clip_must_match_another_film() -> None:
    rng = np.random.default_rng(0)
    one, two, three, four, five, *others = (int(n) for n in rng.integers(0, 2**64, 10, np.uint64))
    whole = with_hashes("a", "f", [one, two, three, four, five])
    near = one ^ 0b1011_0111_0000_0110
    assert pairs_of(whole, with_hashes("b", "g", [near, two, three, *others[:2]], 8)) == [("b", "a")]
    assert pairs_of(whole, with_hashes("b", "g", [one, two, *others[:3]], 8)) == [], "two of five"
    assert pairs_of(whole, with_hashes("b", "g", [four, *others[:1]], 8)) == [], "half is not most"
    assert pairs_of(whole, with_hashes("b", "f", [one, two, three], 8)) == [], "of the same film"
    assert pairs_of(with_hashes("a", "f", []), with_hashes("b", "g", [])) == [], "flat clips"
    assert pairs_of() == []


def test_a_copy_among_ten_thousand_frames_is_found() -> None:
    rng = np.random.default_rng(0)
    clips = [
        with_hashes(f"{n:05d}", str(n % 100), rng.integers(0, 2**64, 5, np.uint64).tolist())
        for n in range(2000)
    ]
    copy = a_clip("copy", "another", perceptual_hash=clips[7].perceptual_hash)
    assert pairs_of(*clips, copy) == [("00007", "copy")]
