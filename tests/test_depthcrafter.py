"""DepthCrafter: the release's latents, the stream against a clip computed at once, folders and the door."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conformance.tiny_release import write_release
from torch.testing import assert_close

from secondeye.depth.depthcrafter import DepthCrafter, DepthCrafterSettings
from secondeye.depth.depthcrafter.pipeline import DepthCrafterPipeline
from secondeye.depth.depthcrafter.weights import load_pipeline

CONFORMANCE = Path(__file__).parent / "conformance"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    write_release(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(release: Path) -> DepthCrafterPipeline:
    return load_pipeline(release, "cpu")


def test_latents_are_those_of_the_release(pipeline: DepthCrafterPipeline) -> None:
    with np.load(CONFORMANCE / "dc_single.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in ("video", "window_noise", "latents")}
        generator = torch.Generator().manual_seed(int(file["aug_seed"]))
    frames = arrays["video"].permute(0, 3, 1, 2).contiguous()
    pixel_noise = torch.randn(frames.shape, generator=generator)
    crafter = DepthCrafter(
        pipeline,
        DepthCrafterSettings(),
        pixel_noise=lambda number, shape: pixel_noise[number],
        window_noise=lambda number, shape: arrays["window_noise"][0, number],
    )
    latents = torch.cat([group.latents for group in crafter.latent_groups(frames.split(2))])
    assert_close(latents, arrays["latents"], atol=1e-3, rtol=0)
