"""Windows and tiles of the diffusion inpainter, ours and the release's, with tiny networks."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import released_walk
import torch
from conformance.tiny_release import EMBEDDING, SEEDS, make_autoencoder, make_image_encoder, make_network
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.testing import assert_close

from secondeye.evaluation.methods import warp_and_inpaint
from secondeye.imaging.arrays import frames_from_uint8, frames_to_uint8
from secondeye.inpaint import InpaintOptions, Warped, inpaint_shot
from secondeye.inpaint.autoencoder import decode, decode_tiles
from secondeye.inpaint.conditions import Conditions, clear_holes, time_ids, unconditional
from secondeye.inpaint.denoising import denoise, denoise_one_step, guided_velocity
from secondeye.inpaint.diffusion import SEED, Diffusion, InpaintStats, load_diffusion
from secondeye.inpaint.interface import InpainterState
from secondeye.inpaint.open_frame import OpenFrame
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.sampling_config import SamplingConfig
from secondeye.inpaint.tiles import plan_tiles
from secondeye.inpaint.tiny import make_scheduler, make_tiny
from secondeye.inpaint.working_size import cut_tiles, reduce_warped
from secondeye.system.errors import UserError

QUICK = SamplingConfig(steps=1, guidance=1.01, noise_share=0.0, keep_thin_holes=False, decode_frames=2)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def released() -> StereoInpaintPipeline:
    network = make_network(9, SEEDS["inpainting"])
    return StereoInpaintPipeline(make_autoencoder(), make_image_encoder(), network, make_scheduler())


@pytest.fixture(scope="module")
def tiny() -> StereoInpaintPipeline:
    torch.manual_seed(3)
    return make_tiny(frames=4)


@pytest.fixture(scope="module")
def one_step() -> StereoInpaintPipeline:
    torch.manual_seed(3)
    return make_tiny(frames=4, in_channels=13)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(frames: int, height: int, width: int, seed: int = 0) -> Warped:
    """Noise with a hole of 6 columns and soft edges beside it."""
    picture = torch.rand(frames, 3, height, width, generator=seeded(seed))
    coverage = torch.ones(frames, 1, height, width)
    coverage[..., 10:16] = 0
    coverage[..., 16] = 0.6
    return Warped(picture, picture * (coverage > 0), coverage, torch.zeros_like(coverage))


def inpaint(
    pipeline: StereoInpaintPipeline,
    warped: Warped,
    state: InpainterState | None = None,
    *,
    steps: int = 1,
    tiles: int | None = None,
    seed: int = SEED,
) -> tuple[Tensor, InpainterState]:
    """Inpaint the frames of a shot, or its next ones; also return the state after them."""
    inpainter = Diffusion(pipeline, InpaintOptions(steps=steps, tiles=tiles), seed)
    frames, states = zip(*inpainter([warped], state), strict=True)
    return torch.cat(frames), states[-1]


def to_uint8(warped: Warped) -> Warped:
    return warped._replace(left=frames_to_uint8(warped.left), frames=frames_to_uint8(warped.frames))


class Pointwise(nn.Module):
    """A network that treats each latent for itself: nothing given is 0, else what is given counts."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.passes = 0

    def forward(self, stacked: Tensor, timestep: Tensor, *_: object, **__: object) -> tuple[Tensor]:
        self.passes += 1
        return (0.1 * stacked[:, :, :4] + stacked[:, :, 4:8],)


def conditions(frames: int, height: int, width: int) -> Conditions:
    latents = torch.rand(1, frames, 4, height, width, generator=seeded(2))
    embedding = torch.ones(1, 1, EMBEDDING)
    mask, ids = torch.ones(1, frames, 1, height, width), time_ids(1, QUICK, "cpu")
    return Conditions(latents, mask, embedding, ids)


# The release's walk


def test_guidance_is_linear_over_frames() -> None:
    given, network = conditions(5, 2, 3), Pointwise()
    noisy = torch.rand(1, 5, 4, 2, 3)
    velocity = guided_velocity(network, noisy, torch.tensor(1.0), given, (1.0, 3.0))
    ramp = torch.tensor([1.0, 1.5, 2.0, 2.5, 3.0]).view(-1, 1, 1, 1)
    assert_close(velocity, 0.1 * noisy + ramp * given.latents)
    assert network.passes == 2
    guided_velocity(network, noisy, torch.tensor(1.0), given, (1.0, 1.0))
    assert network.passes == 3
    same = guided_velocity(network, noisy, torch.tensor(1.0), given, 2.0)
    assert_close(same, guided_velocity(network, noisy, torch.tensor(1.0), given, (2.0, 2.0)))


@pytest.mark.parametrize("tiles_per_side", [1, 2])
def test_release_draws_noise_per_tile(released: StereoInpaintPipeline, tiles_per_side: int) -> None:
    """A frame's noise and then a latent's, tile after tile, row by row."""
    frames = torch.rand(1, 3, 128, 256, generator=seeded(1))
    holes = (frames[:, :1] > 0.6).float()
    latents, decoded = released_walk.inpaint_chunk(
        released, frames, holes, generator=seeded(7), sampling=QUICK, tiles_per_side=tiles_per_side
    )
    generator = seeded(7)
    rows: list[list[Tensor]] = []
    for tiles in released_walk.plan_tiles(128, 256, tiles_per_side):
        rows.append([])
        for tile in tiles:
            torch.randn(1, 3, tile.height, tile.width, generator=generator)
            noise = torch.randn(1, 1, 4, tile.height // 8, tile.width // 8, generator=generator)
            given = (tile.crop(frames), tile.crop(holes))
            rows[-1].append(released.sample_latents(*given, sampling=QUICK, generator=seeded(0), noise=noise))
    expected = released_walk.blend(rows, 16)
    assert_close(latents, expected)
    assert latents.shape == (1, 4, 16, 32)
    assert_close(decoded, (decode(released.vae, expected, 2) / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=0)


def test_release_overlaps_decoded_frames_with_their_mask(
    released: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Tensor, Tensor]] = []

    def inpaint(_: object, frames: Tensor, holes: Tensor, **__: object) -> tuple[Tensor, Tensor]:
        given.append((frames, holes))
        return frames, (frames + 0.0103) / 2

    monkeypatch.setattr(released_walk, "inpaint_chunk", inpaint)
    frames, holes = torch.rand(24, 3, 150, 140), torch.rand(24, 1, 150, 140)
    made = released_walk.inpaint_film(released, frames, holes, generator=seeded(0))
    assert made.shape == (24, 3, 128, 128)
    assert_close((made * 255).round() / 255, made, atol=1e-7, rtol=0)
    (first, _), (second, mask) = given
    assert (len(first), len(second)) == (23, 20)
    assert torch.equal(second[:19], made[4:23]) and torch.equal(second[19:], frames[23:, :, :128, :128])
    assert torch.equal(mask, holes[4:, :, :128, :128])


def test_tile_size_need_not_be_even(released: StereoInpaintPipeline) -> None:
    """Of the release's four tiles a side of 256 px each has 160, 20 latents."""
    frames = torch.rand(1, 3, 128, 160)
    assert released.sample_latents(frames, frames[:, :1], sampling=QUICK, generator=seeded(0)).shape == (
        1,
        4,
        16,
        20,
    )


def test_release_inpaints_a_film(tiny: StereoInpaintPipeline) -> None:
    """Two chunks of two tiles a side, the second of fewer frames."""
    frames = torch.rand(5, 3, 128, 128, generator=seeded(4))
    options: dict[str, Any] = {"sampling": QUICK, "chunk_frames": 4, "overlap": 1, "tiles_per_side": 2}
    made = released_walk.inpaint_film(tiny, frames, frames[:, :1], generator=seeded(0), **options)
    again = released_walk.inpaint_film(tiny, frames, frames[:, :1], generator=seeded(0), **options)
    assert made.shape == frames.shape and torch.equal(made, again)


def test_unconditional_drops_both_views() -> None:
    given = conditions(2, 3, 4)
    assert unconditional(given).left is None
    nothing = unconditional(given._replace(left=given.latents))
    assert nothing.left is not None and not nothing.left.any()
    assert not nothing.latents.any() and not nothing.mask.any() and not nothing.embedding.any()
    assert torch.equal(nothing.time_ids, given.time_ids)


# Tiles of ours


@pytest.mark.parametrize(("tiles_per_side", "count"), [(2, 4), (3, 6)])
def test_tiles_of_a_pointwise_network_equal_the_whole(tiles_per_side: int, count: int) -> None:
    given, noise = conditions(2, 24, 32), torch.randn(1, 2, 4, 24, 32)
    sampling = SamplingConfig(3, (1.0, 1.5), 0.0, True, 2)
    network = Pointwise()
    whole = denoise(network, make_scheduler(), noise, given, sampling)
    tiles = plan_tiles(24, 32, (tiles_per_side, tiles_per_side), 4, 8)
    assert len(tiles) == count
    assert_close(denoise(network, make_scheduler(), noise, given, sampling, tiles), whole)


def test_tiles_are_blended_in_one_step() -> None:
    left, network = torch.rand(1, 2, 4, 24, 32, generator=seeded(3)), Pointwise()
    given = conditions(2, 24, 32)._replace(left=left)
    whole = denoise_one_step(network, given)
    assert_close(whole, -left)  # what stands behind the zeros
    assert_close(denoise_one_step(network, given, tiles=plan_tiles(24, 32, (3, 3), 4, 8)), whole)
    assert network.passes == 1 + 6


def test_frames_outside_of_the_tiles_are_unchanged(tiny: StereoInpaintPipeline) -> None:
    frames = torch.rand(1, 3, 64, 192, generator=seeded(1))
    left, _, right = plan_tiles(8, 24, (1, 3), 0, 8)
    options: dict[str, Any] = {"sampling": QUICK, "generator": seeded(0)}
    inpainted = tiny(frames, frames[:, :1], tiles=[left, right], **options).frames
    same = inpainted[..., 64:128]
    assert_close(same, frames[..., 64:128], atol=1e-6, rtol=0)
    assert (inpainted[..., :64] - frames[..., :64]).abs().mean() > 0.01


def test_tiles_are_decoded_independently(tiny: StereoInpaintPipeline) -> None:
    latents, frames = torch.randn(3, 4, 8, 24, generator=seeded(1)), torch.ones(3, 3, 64, 192)
    _, middle, _ = plan_tiles(8, 24, (1, 3), 0, 8)
    with torch.no_grad():
        decode_tiles(tiny.vae, latents, 2, [middle], frames)
        assert_close(frames[..., 64:128], decode(tiny.vae, latents[..., 8:16], 2))
    assert bool((frames[..., :64] == 1).all() and (frames[..., 128:] == 1).all())


def test_tiles_and_windows_without_holes_are_skipped(tiny: StereoInpaintPipeline) -> None:
    coverage = torch.ones(10, 1, 64, 500)
    coverage[:4, :, 30, 20] = 0  # in the left tile alone; the second window has none, nor the third
    frames = torch.rand(10, 3, 64, 500, generator=seeded(1))
    seen: list[tuple[int, ...]] = []
    hook = tiny.unet.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[-2:])))
    inpainter = Diffusion(tiny, InpaintOptions(steps=2, tiles=3))
    whole = inpaint_shot(inpainter, [Warped(frames, frames * coverage, coverage, coverage)])
    hook.remove()
    assert seen == [(8, 32)] * 2
    open_pixels = (coverage < 1).expand_as(frames)
    assert torch.equal(whole[~open_pixels], frames[~open_pixels])
    assert (whole[open_pixels] - (frames * coverage)[open_pixels]).abs().max() > 0
    assert inpainter.stats == InpaintStats(windows=3, windows_skipped=2, tiles=9, tiles_skipped=8)
    assert str(inpainter.stats) == (
        "diffusion: 2 of 3 windows (67 %) and 8 of 9 tiles (89 %) had no hole and were skipped"
    )


# The picture


@pytest.fixture(scope="module")
def inpainter(tiny: StereoInpaintPipeline, tmp_path_factory: pytest.TempPathFactory) -> Diffusion:
    folder = tmp_path_factory.mktemp("tiny")
    tiny.save_pretrained(folder)
    return load_diffusion(folder, "cpu", InpaintOptions(steps=1))


@pytest.mark.parametrize("size", [(1, 41, 57), (3, 64, 64), (5, 33, 70)])
def test_covered_pixels_are_unchanged(inpainter: Diffusion, size: tuple[int, int, int]) -> None:
    warped = scene(*size)
    whole = inpaint_shot(inpainter, [warped])
    seen = (warped.coverage == 1).expand_as(whole)
    assert whole.shape == warped.frames.shape and whole.dtype == torch.float32
    assert torch.equal(whole[seen], warped.frames[seen])
    assert not torch.equal(whole[~seen], warped.frames[~seen])
    assert whole.min() >= 0 and whole.max() <= 1
    again = inpaint_shot(inpainter, [warped])
    assert torch.equal(whole, again)


def test_half_covered_pixels_are_blended(tiny: StereoInpaintPipeline) -> None:
    warped = scene(1, 64, 64)
    nothing_seen = warped._replace(coverage=torch.where(warped.coverage < 1, 0.0, 1.0))
    half, _ = inpaint(tiny, warped)
    inpainted, _ = inpaint(tiny, nothing_seen)
    edge = (..., slice(16, 17))
    # The network's mask differs there too, so only the bounds of the blend can be checked.
    assert (half[edge] - 0.6 * warped.frames[edge]).abs().max() <= 0.4 + 1e-6
    assert not torch.equal(half[edge], inpainted[edge])


def test_network_does_not_run_without_holes(tiny: StereoInpaintPipeline) -> None:
    warped = scene(2, 64, 64)
    calls: list[object] = []
    hook = tiny.unet.register_forward_pre_hook(lambda *_: calls.append(None))
    whole, state = inpaint(tiny, warped._replace(coverage=torch.ones_like(warped.coverage)))
    hook.remove()
    assert torch.equal(whole, warped.frames) and not calls
    assert len(state["frames"]) == 2


Given = list[tuple[Tensor, Tensor, Tensor | None]]  # frames, holes and left view of each window


def record_windows(patch: pytest.MonkeyPatch) -> Given:
    """Replace the network by gray images, 0.1 brighter for every window, and record what it was given."""
    given: Given = []

    def sample(
        _: object, frames: Tensor, holes: Tensor, *, left: Tensor | None = None, **__: object
    ) -> Tensor:
        given.append((frames, holes, left))
        return torch.full((len(frames), 4, 1, 1), len(given) / 10)

    def decode_all(
        _: object, latents: Tensor, frames: Tensor, __: object, ___: object, first: int
    ) -> Iterator[Tensor]:
        whole = latents[:, :3].expand(-1, -1, *frames.shape[1:3])
        return iter(whole[first:].split(2))

    patch.setattr(StereoInpaintPipeline, "sample_latents", sample)
    patch.setattr(StereoInpaintPipeline, "decode_groups", decode_all)
    return given


def test_windows_overlap_composed_frames(
    tiny: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network sees 4 frames here: after the first window one of them is the last whole picture."""
    given = record_windows(monkeypatch)
    warped = to_uint8(scene(9, 64, 64))
    whole, state = inpaint(tiny, warped)
    assert whole.dtype == torch.uint8 and whole.shape == (9, 64, 64, 3)
    assert [len(frames) for frames, _, _ in given] == [4, 4, 4]
    assert bool((whole[4:7, :, 12] == 51).all())
    (_, first_holes, _), (second, second_holes, _), (third, _, _) = given
    # Holes are inpainted, the rest is the warped view; the last window overlaps one frame more.
    assert torch.equal(second[0], whole[3]) and torch.equal(third[:2], whole[5:7])
    assert torch.equal(second[1:], warped.frames[4:7])
    seen = warped.coverage[3, 0] == 1
    assert torch.equal(second[0][seen], warped.frames[3][seen])
    # These weights were trained with the overlap mask unchanged.
    assert torch.equal(second_holes, first_holes)
    # What follows continues in the same way.
    inpaint(tiny, warped, state)
    assert torch.equal(given[3][0][0], whole[8])


def test_overlap_mask_is_applied_as_trained(
    tiny: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {name: tiny.components[name] for name in ("vae", "image_encoder", "unet", "scheduler")}
    cleared = StereoInpaintPipeline(**parts, overlap_mask="cleared")
    given = record_windows(monkeypatch)
    inpaint(cleared, scene(9, 64, 64))
    assert [holes.flatten(1).any(dim=1).tolist() for _, holes, _ in given] == [
        [True] * 4,
        [False, True, True, True],
        [False, False, True, True],
    ]
    holes = torch.ones(3, 1, 2, 2)
    assert torch.equal(clear_holes(holes, 2, "kept"), holes) and bool(holes.all())


def test_network_sees_the_conditioning_view(
    tiny: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The released splat goes to the network, the sharp warp into the picture."""
    given = record_windows(monkeypatch)
    warped = to_uint8(scene(2, 64, 64))
    splat, cover = 255 - warped.frames, 1 - warped.coverage.round()
    whole, state = inpaint(tiny, warped._replace(conditioning_frames=splat, conditioning_coverage=cover))
    ((frames, holes, _),) = given
    assert torch.equal(frames, splat) and torch.equal(holes, cover == 0)
    seen = warped.coverage[0, 0] == 1
    assert torch.equal(whole[0][seen], warped.frames[0][seen]) and torch.equal(state["frames"], whole)


@pytest.fixture(scope="module")
def long_window() -> StereoInpaintPipeline:
    """A network as the release's, 25 frames at a time, for images of 128 x 128 px; untrained and tiny."""
    torch.manual_seed(3)
    pipeline = make_tiny(frames=25)
    pipeline.unet.register_to_config(sample_size=16)
    return pipeline


def split(warped: Warped, sizes: Sequence[int]) -> list[Warped]:
    starts = accumulate(sizes, initial=0)
    return [warped.take(slice(start, start + size)) for start, size in zip(starts, sizes, strict=False)]


@pytest.mark.parametrize("sizes", [[60], [1] * 60, [8] * 7 + [4], [25, 25, 10], [3, 30, 1, 26]])
def test_windows_do_not_depend_on_the_stream(
    long_window: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    given = record_windows(monkeypatch)
    warped = to_uint8(scene(60, 48, 64))
    results = list(Diffusion(long_window)(split(warped, sizes)))
    assert [len(frames) for frames, _, _ in given] == [25, 25, 25]
    assert [len(result.frames) for result in results] == [25, 22, 13]
    whole = torch.cat([result.frames for result in results])
    levels = torch.repeat_interleave(torch.tensor([26, 51, 76]), torch.tensor([25, 22, 13]))
    assert torch.equal(whole[:, 20, 12, 0].int(), levels.int())
    assert torch.equal(given[2][0][:12, :48], whole[35:47])


def test_evaluation_runs_the_windows_of_a_conversion(
    long_window: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = record_windows(monkeypatch)
    left = torch.rand(50, 3, 24, 32, generator=seeded(1))
    disparity = torch.full((50, 1, 24, 32), 4.0)
    disparity[..., :16] = 0
    right = warp_and_inpaint(left, disparity, Diffusion(long_window))
    assert len(right) == 50 and [len(frames) for frames, _, _ in given] == [25, 25, 25]


def test_frames_in_memory_do_not_grow_with_the_shot(
    long_window: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_windows(monkeypatch)
    alive, most = [0], [0]

    def free() -> None:
        alive[0] -= 1

    def frames() -> Iterator[Warped]:
        for _ in range(300):
            image = np.zeros((1, 16, 24, 3), np.uint8)
            weakref.finalize(image, free)
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            coverage = torch.zeros(1, 1, 16, 24)
            yield Warped(torch.from_numpy(image), torch.from_numpy(image), coverage, coverage)

    groups = [
        (len(result.frames), len(result.state["frames"])) for result in Diffusion(long_window)(frames())
    ]
    assert groups == [(25, 24)] + 12 * [(22, 24)] + [(11, 24)]
    assert most[0] <= 27


def test_compiled_networks_are_used(
    tiny: StereoInpaintPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling takes minutes; here the compiler only counts the calls of what it was given."""
    tiny.save_pretrained(tmp_path)
    calls: list[object] = []

    def count(function: Callable[..., Any], **_: object) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            calls.append(function)
            return function(*given, **named)

        return call

    monkeypatch.setattr(torch, "compile", count)
    inpainter = load_diffusion(tmp_path, "cpu", InpaintOptions(steps=2, compile=True))
    warped = scene(2, 40, 50)
    assert_close(inpaint_shot(inpainter, [warped]), inpaint(tiny, warped, steps=2)[0], atol=1e-3, rtol=0)
    assert len(calls) == 2 + 1 and len(set(map(id, calls))) <= 3  # steps of the network, and the decoder


@pytest.mark.slow(seconds=15)
def test_tiled_windows_of_25_frames(long_window: StereoInpaintPipeline) -> None:
    """2 x 2 tiles of 25 frames, whatever the stream passes on; resuming after any group gives the same."""
    shapes: list[tuple[int, ...]] = []
    hook = long_window.unet.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape)))
    warped = to_uint8(scene(51, 176, 180))
    options = InpaintOptions(steps=1)
    inpainter = Diffusion(long_window, options)
    plan = inpainter.plan(176, 180)
    assert (plan.height, plan.width, plan.tiles, plan.passes) == (176, 180, 4, 4)
    results = list(inpainter(split(warped, [8] * 6 + [3])))
    hook.remove()
    assert shapes == [(1, 25, 9, 16, 16)] * len(shapes) and len(shapes) == 2 * 3  # the right tiles: no hole
    assert inpainter.stats == InpaintStats(windows=3, tiles=12, tiles_skipped=6)
    whole = torch.cat([result.frames for result in results])
    assert len(whole) == 51 and not torch.equal(whole, warped.frames)
    other = list(Diffusion(long_window, options)([warped]))
    assert torch.equal(torch.cat([result.frames for result in other]), whole)
    done = 0
    for result in results:
        done += len(result.frames)
        saved = load(save(dict(result.state)))  # as bytes, as a checkpoint keeps it
        rest = Diffusion(long_window, options)([warped.take(slice(done, None))], saved) if done < 51 else []
        assert torch.equal(torch.cat([whole[:done], *(more.frames for more in rest)]), whole)


def test_state_continues_in_another_process(tiny: StereoInpaintPipeline) -> None:
    """The state after any group, as bytes, gives the same rest of the shot."""
    warped = to_uint8(scene(9, 40, 50))
    results = list(Diffusion(tiny, InpaintOptions(steps=1))([warped]))
    whole = torch.cat([result.frames for result in results])
    for done, result in zip((4, 7), results, strict=False):
        rest, _ = inpaint(tiny, warped.take(slice(done, None)), load(save(dict(result.state))))
        assert torch.equal(rest, whole[done:])
    state = results[0].state
    assert {name: plane.dtype for name, plane in state.items()} == {
        "frames": torch.uint8,
        "holes": torch.bool,
    }
    with pytest.raises(UserError, match="start again"):
        inpaint(tiny, to_uint8(scene(2, 40, 60)), state)


def test_nan_is_refused_where_bytes_are_wanted() -> None:
    coverage = torch.ones(1, 1, 4, 5)
    coverage[..., 2] = 0
    view, nan = torch.full((1, 4, 5, 3), 51, dtype=torch.uint8), torch.full((1, 3, 2, 2), torch.nan)
    in_bytes = OpenFrame.of_warped(Warped(view, view, coverage, coverage))
    with pytest.raises(UserError, match=r"^the model returns NaN or infinite pixels"):
        in_bytes.compose(nan)
    floats = frames_from_uint8(view)
    composed = OpenFrame.of_warped(Warped(floats, floats, coverage, coverage)).compose(nan)
    assert torch.equal(composed.isnan(), (coverage == 0).expand_as(composed))
    assert torch.equal(
        in_bytes.compose(nan.nan_to_num(1))[0, 0, 1:4], torch.tensor([[51], [255], [51]]).expand(3, 3).byte()
    )


def test_bytes_are_inpainted_like_floats_and_seen_bytes_do_not_change(inpainter: Diffusion) -> None:
    warped = to_uint8(scene(5, 40, 50))
    inpainted = inpaint_shot(inpainter, [warped])
    floats = warped._replace(left=frames_from_uint8(warped.left), frames=frames_from_uint8(warped.frames))
    assert torch.equal(inpainted, frames_to_uint8(inpaint_shot(inpainter, [floats])))
    seen = (warped.coverage == 1).permute(0, 2, 3, 1).expand_as(warped.frames)
    assert torch.equal(inpainted[seen], warped.frames[seen])


def test_calls_may_have_any_length(tiny: StereoInpaintPipeline) -> None:
    for count in range(1, 7):
        whole, state = inpaint(tiny, scene(count, 40, 50))
        assert len(whole) == count and len(state["frames"]) == min(3, count)
        assert bool(torch.isfinite(whole).all())


def test_output_depends_on_the_seed_only(tiny: StereoInpaintPipeline) -> None:
    first, again, other = (inpaint(tiny, scene(2, 40, 50), seed=k)[0] for k in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_windows_of_one_frame(inpainter: Diffusion) -> None:
    whole = inpaint_shot(inpainter, [scene(1, 40, 50, seed) for seed in range(2)])
    assert whole.shape == (2, 3, 40, 50) and bool(torch.isfinite(whole).all())
    assert not list(inpainter([]))


def test_large_frames_are_reduced_and_stay_sharp(tiny: StereoInpaintPipeline) -> None:
    warped = scene(1, 181, 190)
    whole, state = inpaint(tiny, warped, tiles=1)
    seen = (warped.coverage == 1).expand_as(whole)
    assert torch.equal(whole[seen], warped.frames[seen])
    assert state["frames"].shape == (1, 172, 181, 3)  # as many pixels as 176 x 176
    _, state = inpaint(tiny, warped)
    assert state["frames"].shape == (1, 181, 190, 3)  # in tiles


def test_reduction_keeps_brightness_and_holes() -> None:
    coverage = torch.ones(1, 1, 9, 13)
    coverage[0, 0, 4, 6] = 0
    frames = torch.full((1, 3, 9, 13), 0.5) * coverage
    small, holes = reduce_warped(frames, coverage, 5, 8)
    assert_close(small, torch.full((1, 3, 5, 8), 0.5))
    assert holes.shape == (1, 1, 5, 8) and holes[0, 0, 2, 3] and holes.sum() <= 4


@pytest.mark.slow(seconds=14)
def test_tiles_leave_no_seams_in_holes(long_window: StereoInpaintPipeline) -> None:
    """Steps at the borders of tiles are at most 1.1 times those elsewhere at the borders of latents."""
    warped = to_uint8(scene(25, 192, 320))
    coverage = torch.ones_like(warped.coverage)
    coverage[..., 8:-8, 8:-8] = 0
    warped = warped._replace(coverage=coverage)
    inpainter = Diffusion(long_window, InpaintOptions(steps=2))
    plan = inpainter.plan(192, 320)
    assert plan.tiles >= 4 and inpainter.stats.tiles_skipped == 0
    whole = inpaint_shot(inpainter, [warped]).float()
    tiles = cut_tiles(192, 320, plan.tile_rows, plan.tile_columns)
    for axis, tops, side in (
        (1, {tile.top for tile in tiles}, tiles[0].height),
        (2, {tile.left for tile in tiles}, tiles[0].width),
    ):
        seams = {8 * edge for top in tops for edge in (top, top + side)}
        inside = whole[:, 8:-8, 8:-8].diff(dim=axis).abs().mean(dim=[k for k in range(4) if k != axis])
        steps = {8 * k: float(inside[8 * k - 9]) for k in range(2, whole.shape[axis] // 8 - 1)}
        at_seams = [step for place, step in steps.items() if place in seams]
        elsewhere = [step for place, step in steps.items() if place not in seams]
        assert at_seams and max(at_seams) <= 1.1 * np.mean(elsewhere)


# One step


def test_one_step_is_one_pass_per_window_for_any_seed(one_step: StereoInpaintPipeline) -> None:
    passes: list[tuple[int, ...]] = []
    hook = one_step.unet.register_forward_pre_hook(lambda _, given: passes.append(tuple(given[0].shape)))
    warped = scene(9, 40, 50)
    made = [inpaint(one_step, warped, steps=steps, seed=seed)[0] for steps, seed in ((8, 1), (3, 2))]
    hook.remove()
    assert torch.equal(*made)
    assert passes == [(1, 4, 13, 8, 8)] * 3 * 2
    other, _ = inpaint(one_step, warped._replace(left=1 - warped.left))
    assert not torch.equal(made[0], other)


def test_windows_take_the_left_view_of_their_frames(
    one_step: StereoInpaintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overlap frames, also those of an earlier call, come with their left views."""
    given = record_windows(monkeypatch)
    warped = to_uint8(scene(9, 41, 57))
    left = frames_to_uint8(torch.rand(9, 3, 41, 57, generator=seeded(8)))
    warped = warped._replace(left=left)
    _, state = inpaint(one_step, warped)
    inpaint(one_step, warped.take(slice(2)), state)
    windows = [left[:4], left[3:7], left[5:], torch.cat([left[7:], left[:2]])]
    for (_, _, seen), wanted in zip(given, windows, strict=True):
        assert seen is not None and seen.shape[1:3] == (64, 64)
        assert torch.equal(seen[:, :41, :57], wanted)
        assert torch.equal(seen[:, 41:, :57], wanted[:, -1:].expand(-1, 23, -1, -1))
    given.clear()
    _, state = inpaint(one_step, scene(1, 181, 190), tiles=1)
    assert given[0][2] is not None and given[0][2].shape == (1, 192, 192, 3)
    assert state["left"].shape == (1, 172, 181, 3)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 41, 57), (5, 33, 70)])
def test_one_step_takes_any_length_and_size(
    one_step: StereoInpaintPipeline, size: tuple[int, int, int]
) -> None:
    warped = (
        scene(*size) if size[2] > 16 else Warped(*torch.zeros(2, 1, 3, 1, 1), *torch.zeros(2, 1, 1, 1, 1))
    )
    whole, state = inpaint(one_step, warped)
    seen = (warped.coverage == 1).expand_as(whole)
    assert torch.equal(whole[seen], warped.frames[seen]) and bool(torch.isfinite(whole).all())
    assert not torch.equal(whole[~seen], warped.frames[~seen])
    assert [len(plane) for plane in state.values()] == [min(3, size[0])] * 3


def test_one_step_skips_windows_without_holes(one_step: StereoInpaintPipeline) -> None:
    coverage = torch.ones(6, 1, 64, 320)
    coverage[:4, :, 30, 20] = 0
    frames = torch.rand(6, 3, 64, 320, generator=seeded(1))
    inpainter = Diffusion(one_step, InpaintOptions(tiles=2))
    inpaint_shot(inpainter, [Warped(frames, frames * coverage, coverage, coverage)])
    assert inpainter.stats == InpaintStats(windows=2, windows_skipped=1, tiles=4, tiles_skipped=3)


# Doors


@pytest.mark.parametrize("plane", ["left", "frames", "coverage"])
def test_broken_windows_are_refused(tiny: StereoInpaintPipeline, plane: str) -> None:
    warped = scene(1, 40, 50)
    with pytest.raises(ValueError):
        inpaint(tiny, warped._replace(**{plane: getattr(warped, plane)[..., :-1]}))
    with pytest.raises(ValueError, match="NaN"):
        inpaint(tiny, warped._replace(**{plane: getattr(warped, plane) * float("nan")}))
