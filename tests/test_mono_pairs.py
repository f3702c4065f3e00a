"""Monocular pairs with a maximum gradient: where holes lie, and that every training takes the setting."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import load_preset
from small_dataset import write_rows, write_small_dataset
from torch import Tensor

from secondeye.dataset.schema import SyntheticShot
from secondeye.inpaint import Conditioning
from secondeye.params import Gate
from secondeye.run_folder import Run, open_run
from secondeye.synthetic import two_planes
from secondeye.training import autoencoder, diffusion, light, mono_runs
from secondeye.training.mono_runs import prepare_mono_runs
from secondeye.training.monocular import double_warp, falls
from secondeye.training.shots import list_shots
from secondeye.training.stereo_shot import StereoShot

pytestmark = pytest.mark.usefixtures("one_thread")
MAX_GRADIENT = 0.25  # px per px


def noise(frames: int = 1, height: int = 8, width: int = 160) -> Tensor:
    return torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(0))


def soft_card() -> Tensor:
    """Disparities of a card of 9 px before a wall of 1 px, between ramps of 20 px: 0.4 px per px."""
    row = torch.full((160,), 1.0)
    row[50:71] = torch.linspace(1, 9, 21)
    row[71:90] = 9
    row[90:111] = torch.linspace(9, 1, 21)
    return row.expand(1, 1, 8, 160).contiguous()


def error(shot: StereoShot) -> float:
    """Return the mean error of what is seen."""
    return float((shot.warped - shot.right).abs()[(shot.coverage == 1).expand_as(shot.right)].mean())


def test_only_a_fall_from_near_to_far_is_marked_and_its_ends_are_not() -> None:
    disparity = soft_card()
    assert falls(disparity, MAX_GRADIENT)[0, 0, 3].nonzero()[:, 0].tolist() == list(range(91, 110))
    assert not falls(disparity, 0.45).any(), "no steeper ramp"
    assert not falls(-disparity, MAX_GRADIENT)[..., 90:111].any(), "a rise is none"


@pytest.mark.parametrize("conditioning", ["warp", "splat"])
def test_a_soft_edge_opens_a_hole_instead_of_being_stretched(conditioning: Conditioning) -> None:
    frames, disparity = noise(), soft_card()
    plain, aware = (double_warp(frames, disparity, conditioning, limit) for limit in (0.0, MAX_GRADIENT))
    fall = falls(disparity, MAX_GRADIENT)
    assert (plain.coverage[..., 95:105] == 1).any(), "the warp shows what it has stretched"
    assert torch.equal(aware.coverage, plain.coverage * ~fall)
    assert torch.equal(aware.warped, plain.warped * ~fall)
    assert torch.equal(aware.disparity, plain.disparity * ~fall)
    assert torch.equal(aware.left, plain.left) and torch.equal(aware.right, frames)
    assert error(aware) < error(plain), "what is seen is nearer to the truth"


def test_sharp_edges_and_constant_disparities_are_left_to_the_warp() -> None:
    shot = two_planes(near_px=8, far_px=2, step_px=1)
    constant = torch.full_like(shot.right_disparity, 3.0)
    for disparity in (shot.right_disparity, constant):
        plain, aware = (double_warp(shot.right, disparity, "warp", limit) for limit in (0.0, MAX_GRADIENT))
        assert all(torch.equal(*planes) for planes in zip(plain, aware, strict=True))
    assert torch.equal(
        double_warp(shot.right, shot.right_disparity, "warp", MAX_GRADIENT).coverage == 0,
        shot.right_occlusion,
    )


def test_runs_of_a_film_keep_their_ramps_and_are_read_alike(
    make_film: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film("mono.mp4", shots=(8,), height=8, width=160, sound=False)
    sharpened = []

    def estimate(frames: Tensor, rng: np.random.Generator, *, sharp: bool) -> Tensor:
        sharpened.append(sharp)
        return soft_card().expand(len(frames), -1, -1, -1)

    monkeypatch.setattr(mono_runs, "plausible_disparity", estimate)
    aware, plain = (
        prepare_mono_runs([film], tmp_path / str(limit), 8, 8, 160, 0, "warp", limit)[0]
        for limit in (MAX_GRADIENT, 0.0)
    )
    assert sharpened == [False, True]
    fall = falls(soft_card(), MAX_GRADIENT)
    assert torch.equal(aware.read([0, 3]).coverage, plain.read([0, 3]).coverage * ~fall)
    assert torch.equal(aware.read([3]).warped, aware.read([0, 3]).warped[1:])


def test_a_listing_gives_the_maximum_to_monocular_shots(
    make_film: Callable[..., Path], tmp_path: Path
) -> None:
    data = write_small_dataset(tmp_path / "data")
    (data / "raw").mkdir()
    make_film("data/raw/mono.mp4", shots=(9,), height=64, width=96, sound=False)
    (data / "raw" / "sources.csv").write_text("film,packing,split,licence\nmono.mp4,mono,train,CC0-1.0\n")
    write_rows(data, {SyntheticShot: []})
    run = open_run(tmp_path, "key", "train", Gate(confidence=0.5), {})
    pool = list_shots(run, data, (2, 16, 32), "warp", mono_max_gradient=MAX_GRADIENT)
    shots = cast(list[Any], pool.mono)
    assert [shot.max_gradient for shot in shots] == [MAX_GRADIENT] * 4, "three clips and a run of the film"
    clip = shots[0]
    left, _ = clip.dataset.views(clip.clip, [1])
    fall = falls(clip.dataset.disparity(clip.clip, [1]) * clip.scale, MAX_GRADIENT)
    assert not clip.read([1]).coverage[fall].any() and torch.equal(clip.read([1]).right, (left * 255).byte())


@pytest.mark.parametrize("trainer", [light, autoencoder, diffusion])
def test_every_training_of_an_inpainter_takes_the_maximum(
    trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, given = load_preset("laptop", tmp_path), []
    monkeypatch.setattr(trainer, "list_shots", lambda *_, mono_max_gradient: given.append(mono_max_gradient))
    monkeypatch.setattr(trainer, f"train_{trainer.__name__.rpartition('.')[2]}", lambda *_: None)
    run = cast(Run, None)
    if trainer is light:
        light.train(run, tmp_path, replace(params.train_light, mono_max_gradient=0.3))
    elif trainer is autoencoder:
        autoencoder.train(run, tmp_path, replace(params.train_diffusion, mono_max_gradient=0.3))
    else:
        diffusion.train(run, tmp_path, tmp_path, replace(params.train_diffusion, mono_max_gradient=0.3))
    assert given == [0.3]
