"""The shipped model: it matches its model card and scores better than the baseline without weights."""

import hashlib
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from secondeye.conversion.bundle import Bundle, read_bundle, settings_from_bundle
from secondeye.conversion.bundle_parts import SHIPPED
from secondeye.conversion.picture import Picture
from secondeye.conversion.render import SourceWindow, render
from secondeye.evaluation.regions import regions_from_truth
from secondeye.evaluation.score import compute, prepare, update
from secondeye.film.still_parts import NOTHING_STILL
from secondeye.imaging.arrays import frames_to_uint8
from secondeye.inpaint import Inpainter, Warped, inpaint_shot, make_inpainter
from secondeye.inpaint.fill import fill_shot
from secondeye.synthetic import render_shot
from secondeye.warp import warp

UNSEEN = (70_001, 70_002, 70_003, 70_004)  # seeds that no preset trains on


def test_model_card_describes_these_weights() -> None:
    card = (SHIPPED / "MODEL_CARD.md").read_text()
    weights = SHIPPED / "inpaint" / "model.safetensors"
    (digest,) = re.findall(r"`([0-9a-f]{64})`", card)
    assert digest == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert "licence" in card and weights.stat().st_size < 12e6
    assert {str(tensor.dtype) for tensor in load_file(weights).values()} == {"torch.float16"}


def test_fill_is_the_default_and_shipped_weights_run_if_named() -> None:
    assert read_bundle(SHIPPED) == Bundle("motion", "light")
    given = settings_from_bundle(None)
    assert (given.inpainter, given.model, given.depth) == ("fill", None, "auto")
    light = settings_from_bundle(None, inpainter="light")
    assert (light.inpainter, light.model, light.depth) == ("light", SHIPPED, "auto")
    whole = settings_from_bundle(SHIPPED)
    assert (whole.inpainter, whole.model, whole.depth) == ("light", SHIPPED, "motion")


@pytest.mark.parametrize("inpainter", ["fill", "light"])
def test_a_gray_film_stays_gray(inpainter: str) -> None:
    """Exactly, in the right view of a conversion: in holes, at both borders, and in later frames."""
    shot = render_shot(UNSEEN[0], 3, 96, 160)
    gray = frames_to_uint8(shot.left.mean(1, keepdim=True).expand_as(shot.left))
    depth = shot.disparity - shot.disparity.amin()
    weights = SHIPPED / "inpaint" if inpainter == "light" else None
    (made,) = render(
        [SourceWindow(gray, depth / depth.amax())],
        make_inpainter(inpainter, weights, "cpu"),
        picture=Picture(NOTHING_STILL, 96, 160),
        strength_percent=10,
        convergence=0.5,
        device="cpu",
    )
    assert made.right.dtype == torch.uint8 and (made.right == made.right[..., :1]).all()
    assert not torch.equal(made.right, gray)


@pytest.fixture(scope="module")
def scores() -> dict[str, list[dict[str, float]]]:
    inpainters: dict[str, Inpainter] = {
        "fill": fill_shot,
        "shipped": make_inpainter("light", SHIPPED / "inpaint", "cpu"),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in inpainters}
    for seed in UNSEEN:
        shot = render_shot(seed, 2, 128, 224)
        regions = regions_from_truth(shot.right_disparity, shot.right_occlusion)
        reference = prepare(shot.left, shot.right, regions)
        warped = Warped(shot.left, *warp(shot.left, shot.disparity))
        for name, inpainter in inpainters.items():
            found[name].append(
                compute(update(reference, inpaint_shot(inpainter, [warped]), overlap=0, learned=None))
            )
    return found


@pytest.mark.parametrize("score", ["haarpsi", "psnr_disoccluded_db"])
def test_shipped_model_beats_fill_on_unseen_shots(
    scores: dict[str, list[dict[str, float]]], score: str
) -> None:
    fill, shipped = (np.nanmean([row[score] for row in scores[name]]) for name in ("fill", "shipped"))
    assert shipped > fill


def test_the_border_is_that_of_fill(scores: dict[str, list[dict[str, float]]]) -> None:
    fill, shipped = ([row["psnr_border_db"] for row in scores[name]] for name in ("fill", "shipped"))
    assert fill == shipped
