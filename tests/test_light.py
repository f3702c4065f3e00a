"""Light inpainter: visible pixels are unchanged, invariance to windows and crops, sizes, weights on disk."""

import json
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor

from secondeye.conversion.picture import Picture
from secondeye.conversion.render import SourceWindow, render
from secondeye.film.still_parts import NOTHING_STILL
from secondeye.imaging.arrays import frames_from_uint8, frames_to_uint8
from secondeye.inpaint import (
    Inpainter,
    Warped,
    inpaint_shot,
    light,
    light_inputs,
    light_network,
    make_inpainter,
)
from secondeye.inpaint.fill import fill, flow_gray
from secondeye.inpaint.hole_crops import plan_hole_crops
from secondeye.inpaint.light import inpaint_frames, load_light, save_light
from secondeye.inpaint.light_inputs import (
    INPUT_CHANNELS,
    Margin,
    flow_to_previous,
    pack_crop,
    pack_planes,
    soft_hole_mask,
    stack_inputs,
    warp_previous,
)
from secondeye.inpaint.light_network import CHANNELS, Light
from secondeye.inpaint.losses import (
    Discriminator,
    discriminator_loss,
    edge_loss,
    generator_loss,
    inpainting_loss,
)
from secondeye.synthetic import two_planes
from secondeye.system.errors import UserError
from secondeye.warp import warp

SMALL = (4, 6, 8)


def loud(channels: tuple[int, int, int] = SMALL, seed: int = 0) -> Light:
    """A network that changes much: its last layer is not zero as at the start of a training."""
    torch.manual_seed(seed)
    model = Light(channels).eval()
    torch.nn.init.normal_(model.tail.weight, std=0.5)
    return model


def cards(**sizes: int) -> Warped:
    shot = two_planes(**sizes)
    return Warped(shot.left, *warp(shot.left, shot.disparity))


@pytest.fixture
def inpainter(tmp_path: Path) -> Inpainter:
    save_light(loud(), tmp_path / "model")
    return make_inpainter("light", tmp_path / "model", "cpu")


def test_network_is_small_on_disk() -> None:
    assert 2 * sum(weights.numel() for weights in Light(CHANNELS).parameters()) < 12e6  # bytes in fp16


@pytest.mark.parametrize("error", [OSError(28, "No space left"), SafetensorError("No space left")])
def test_a_full_disk_is_a_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fill_up(*_: object) -> None:
        raise error

    monkeypatch.setattr(light, "save_file", fill_up)
    with pytest.raises(UserError, match=r"model: the weights cannot be written .*; free some disk"):
        save_light(loud(), tmp_path / "model")


def test_covered_pixels_are_unchanged(inpainter: Inpainter) -> None:
    warped = cards(frames=3, step_px=1)
    disparity = warped.disparity.clone()
    coverage = warped.coverage * torch.where(disparity == 8, 0.7, 1.0)  # the near card is half there
    inpainted = inpaint_shot(inpainter, [warped._replace(coverage=coverage)])
    seen = (coverage == 1).expand_as(inpainted)
    assert torch.equal(inpainted[seen], warped.frames[seen])
    filled, _ = fill(warped.frames, coverage, disparity)
    assert ((inpainted - filled)[~seen].abs() > 0.01).float().mean() > 0.5  # holes are inpainted
    assert inpainted.min() >= 0 and inpainted.max() <= 1


@pytest.mark.parametrize("in_bytes", [False, True])
def test_chroma_is_that_of_the_filled_frame(inpainter: Inpainter, in_bytes: bool) -> None:
    """The network changes brightness, so that a gray film stays gray, exactly."""
    warped = cards(frames=2, height=48, width=96)
    views = [0.3 + 0.4 * view for view in warped[:2]]
    gray = [view.mean(1, keepdim=True).expand_as(view).contiguous() for view in views]
    if in_bytes:
        views, gray = ([frames_to_uint8(view) for view in pair] for pair in (views, gray))
    colours = -1 if in_bytes else 1
    red, green, blue = inpaint_shot(inpainter, [Warped(*gray, *warped[2:4])]).unbind(colours)
    assert torch.equal(red, green) and torch.equal(green, blue)

    filled, _ = fill(views[1], *warped[2:4])
    change = inpaint_shot(inpainter, [Warped(*views, *warped[2:4])]).float() - filled.float()
    assert change.abs().max() > (10 if in_bytes else 0.04)
    inside = (filled.float() + change).aminmax(dim=colours)
    spread = change.amax(colours) - change.amin(colours)
    unclipped = (inside.min > 0) & (inside.max < (255 if in_bytes else 1))
    assert spread[unclipped].max() <= (1 if in_bytes else 1e-6)


def test_conversion_refuses_nan(tmp_path: Path) -> None:
    model = loud()
    torch.nn.init.constant_(model.tail.weight, torch.nan)
    save_light(model, tmp_path / "model")
    broken = make_inpainter("light", tmp_path / "model", "cpu")
    depth = torch.zeros(1, 1, 32, 48)
    depth[..., 16:32] = 1
    window = SourceWindow(torch.full((1, 64, 96, 3), 128, dtype=torch.uint8), depth)
    with pytest.raises(UserError, match=r"^the model returns NaN or infinite pixels"):
        whole = Picture(NOTHING_STILL, 64, 96)
        next(render([window], broken, picture=whole, strength_percent=10, convergence=0.5, device="cpu"))


def test_bytes_are_inpainted_like_floats_and_seen_bytes_do_not_change(inpainter: Inpainter) -> None:
    as_floats = cards(frames=1, height=48, width=96)
    left, frames = (frames_to_uint8(view) for view in as_floats[:2])
    warped = as_floats._replace(left=left, frames=frames)
    inpainted = inpaint_shot(inpainter, [warped])
    floats = warped._replace(left=frames_from_uint8(warped.left), frames=frames_from_uint8(warped.frames))
    difference = frames_from_uint8(inpainted) - inpaint_shot(inpainter, [floats])
    # The network sees what `fill` made, rounded, and this network doubles the difference.
    assert difference.abs().max() < 0.02 and difference.abs().mean() < 0.001
    seen = (warped.coverage == 1).permute(0, 2, 3, 1).expand_as(frames)
    assert torch.equal(inpainted[seen], frames[seen])


def test_half_covered_pixels_change_half_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, surface = torch.full((1, 3, 24, 32), 0.5), torch.zeros(1, 1, 24, 32)
    coverage = torch.ones(1, 1, 24, 32)
    coverage[..., 10:12], coverage[..., 12:14] = 0.5, 0
    monkeypatch.setattr(Light, "forward", lambda model, *inputs: torch.tensor(0.2).expand(1, 3, 1, 1))
    inpainted, _ = inpaint_frames(Light(SMALL), Warped(frames, frames, coverage, surface), None)
    assert inpainted[0, 0, 5, 9:15].tolist() == pytest.approx([0.5, 0.6, 0.6, 0.7, 0.7, 0.5])


def test_the_border_and_rows_without_a_covered_pixel_belong_to_fill() -> None:
    coverage = torch.tensor([[0.0, 1, 0.25, 1, 0], [0, 0, 0, 0, 0], [0.5, 0.5, 1, 1, 1]])
    expected = torch.tensor([[0.0, 0, 0.75, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])
    assert torch.equal(soft_hole_mask(coverage), expected)


def test_flat_surroundings_are_hardly_changed() -> None:
    flat = torch.full((1, INPUT_CHANNELS, 32, 32), 0.5)
    rough = torch.rand(flat.shape, generator=torch.Generator().manual_seed(0))
    change = [float(loud()(*pack_planes(planes)).abs().mean().detach()) for planes in (flat, rough)]
    assert change[0] < 0.05 * change[1]


def test_residual_scales_with_contrast() -> None:
    planes = torch.rand(1, INPUT_CHANNELS, 40, 56, generator=torch.Generator().manual_seed(0))
    seen, before = planes[:, light_inputs.COVERAGE], planes[:, light_inputs.PREVIOUS_VALID]
    darker = planes.clone()
    for colours, share in (
        (light_inputs.WARPED, seen),
        (light_inputs.LEFT, 1),
        (light_inputs.PREVIOUS_COLOURS, before),
        (light_inputs.FILLED, 1),
    ):
        planes[:, colours] *= share
        darker[:, colours] = 0.3 * planes[:, colours] + 0.1 * share
    with torch.inference_mode():
        bright, dark = loud()(*pack_planes(planes)), loud()(*pack_planes(darker))
    assert bright.abs().mean() > 0.05
    torch.testing.assert_close(dark, 0.3 * bright, rtol=0.01, atol=1e-3)  # one level of contrast is added


def test_untrained_network_is_fill() -> None:
    warped = cards()
    filled, _ = fill(warped.frames, warped.coverage, warped.disparity)
    inpainted, _ = inpaint_frames(Light(SMALL), warped, None)
    assert torch.equal(inpainted, filled)


@pytest.mark.parametrize("windows", [(1, 4, 1), (2, 2, 2), (5, 1)])
def test_result_does_not_depend_on_windows(inpainter: Inpainter, windows: tuple[int, ...]) -> None:
    warped = cards(frames=6, height=48, width=96, step_px=2, seed=2)
    whole = inpaint_shot(inpainter, [warped])
    starts = [0, *accumulate(windows)]
    parts = [warped.take(slice(*bounds)) for bounds in pairwise(starts)]
    assert torch.equal(inpaint_shot(inpainter, parts), whole)
    first, *rest = parts
    (inpainted,) = inpainter([first])
    resumed = [part.frames for part in inpainter(rest, inpainted.state)]
    assert torch.equal(torch.cat([inpainted.frames, *resumed]), whole)


def test_previous_frame_is_an_input(inpainter: Inpainter) -> None:
    warped = cards(frames=2, height=48, width=96)
    second = warped.take(slice(1, None))
    together = inpaint_shot(inpainter, [warped])
    alone = inpaint_shot(inpainter, [second])
    assert not torch.equal(together[1:], alone)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 31), (16, 16), (17, 33), (50, 301)])
def test_any_size(inpainter: Inpainter, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(2, 3, *size, generator=generator)
    coverage = (torch.rand(2, 1, *size, generator=generator) > 0.3).float()
    warped = Warped(frames, frames * coverage, coverage, torch.zeros(2, 1, *size))
    inpainted = inpaint_shot(inpainter, [warped])
    assert inpainted.shape == frames.shape and torch.isfinite(inpainted).all()


def holed(height: int, width: int, seed: int = 3) -> Warped:
    """Noise with three holes far from each other, as far as there is room."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(1, 3, height, width, generator=generator)
    coverage = torch.ones(1, 1, height, width)
    for row, column in ((3, 5), (height // 2, width // 2), (height - 6, width - 9)):
        coverage[..., max(0, row) : row + 4, max(0, column) : column + 7] = 0
    return Warped(frames, frames * coverage, coverage, torch.zeros(1, 1, height, width))


def painted_at_once(warped: Warped, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(light, "HALO_PX", 4096)
        whole, _ = inpaint_frames(loud(), warped, None)
    return whole


@pytest.mark.parametrize("largest_px", [16, 64, 512])
def test_result_does_not_depend_on_crops(monkeypatch: pytest.MonkeyPatch, largest_px: int) -> None:
    """A crop with its margin gives what the whole picture gives; a smaller margin would not."""
    warped = holed(200, 328)
    whole = painted_at_once(warped, monkeypatch)
    monkeypatch.setattr(light, "MAX_CROP_PX", largest_px)
    cropped, _ = inpaint_frames(loud(), warped, None)
    torch.testing.assert_close(cropped, whole, atol=1e-5, rtol=0)
    monkeypatch.setattr(light, "HALO_PX", 8)
    seams, _ = inpaint_frames(loud(), warped, None)
    assert (seams - whole).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("size", "margin"),
    [
        ((160, 168), (56, 56, 56, 56)),
        ((164, 171), (56, 0, 56, 0)),
        ((164, 171), (0, 20, 24, 51)),
        ((31, 56), (8, 7, 16, 16)),
    ],
)
def test_layers_need_less_and_less_of_the_margin(size: tuple[int, int], margin: tuple[int, ...]) -> None:
    """Cutting the margin on the way gives what the whole gives, also where a crop ends with the frame."""
    planes = torch.rand(1, INPUT_CHANNELS, *size, generator=torch.Generator().manual_seed(1))
    top, bottom, left, right = margin
    inner = (..., slice(top, size[0] - bottom), slice(left, size[1] - right))
    with torch.inference_mode():
        cut = loud()(*pack_planes(planes, Margin(*margin)), Margin(*margin))
        whole = loud()(*pack_planes(planes))
    torch.testing.assert_close(cut, whole[inner], atol=1e-5, rtol=0)


def test_receptive_field_is_the_halo() -> None:
    model = loud()
    planes = torch.rand(1, INPUT_CHANNELS, 168, 168, generator=torch.Generator().manual_seed(1))
    near = slice(80 - light.HALO_PX, 88 + light.HALO_PX)
    far = torch.rand(planes.shape)
    far[..., near, near] = planes[..., near, near]
    with torch.inference_mode():
        one, other = (model(*pack_planes(given))[..., 80:88, 80:88] for given in (planes, far))
    assert torch.equal(one, other)


def test_the_same_frames_give_the_same_bits_for_any_number_of_threads(tmp_path: Path) -> None:
    warped = holed(200, 328)
    save_light(loud(CHANNELS), tmp_path)
    threads, inpainted = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            inpainted.append(inpaint_shot(make_inpainter("light", tmp_path, "cpu"), [warped, warped]))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(inpainted[0], inpainted[1]) and torch.equal(inpainted[1], inpainted[2])


def test_without_holes_no_pass_is_run_and_few_holes_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = loud(), []
    model.register_forward_hook(lambda module, planes, out: seen.append(planes[0].shape[1:3]))
    whole, warped = torch.ones(1, 1, 200, 328), holed(200, 328)
    inpaint_frames(model, Warped(warped.left, warped.left, whole, warped.disparity), None)
    assert not seen
    inpaint_frames(model, warped, None)
    assert len(seen) == 3 and 4 * sum(height * width for height, width in seen) < 0.6 * 200 * 328


def test_a_shot_smaller_than_a_crop() -> None:
    for size in ((1, 1), (5, 3), (9, 20)):
        inpainted, _ = inpaint_frames(loud(), holed(*size), None)
        assert torch.isfinite(inpainted).all() and inpainted.shape[2:] == size


@pytest.mark.parametrize("seed", range(6))
def test_crops_hold_every_hole_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 200, 2))
    holes = rng.random(shape) < rng.choice([0.0005, 0.01, 0.5])
    crops = plan_hole_crops(holes, 8, 24, 64)
    times = np.zeros(shape, int)
    for crop in crops:
        times[crop.inner] += 1
        rows, columns = crop.inner_in_outer
        inside = np.zeros(shape)[crop.outer][rows, columns]
        assert inside.shape == times[crop.inner].shape and max(inside.shape) <= 64
        for inner, outer, side in zip(crop.inner, crop.outer, shape, strict=True):
            assert outer.start == max(0, inner.start - 24) and outer.start % 8 == 0
            assert outer.stop == min(side, -(-inner.stop // 8) * 8 + 24)
    assert (times[holes] == 1).all() and times.max(initial=0) <= 1
    assert bool(crops) == bool(holes.any())


def test_crops_are_cut_where_that_is_less_to_compute() -> None:
    holes = np.zeros((400, 400), bool)
    holes[0:8, 0:8] = holes[392:, 392:] = True
    assert len(plan_hole_crops(holes, 8, 48, 512)) == 2
    assert len(plan_hole_crops(holes[:16, :16] | True, 8, 48, 512)) == 1


def test_network_input_channels() -> None:
    picture, plane = torch.rand(3, 32, 48), torch.ones(1, 32, 48)
    planes = stack_inputs(picture, plane, picture, 4.8 * plane, picture, 48)
    assert planes.shape == (INPUT_CHANNELS, 32, 48)
    assert torch.equal(planes[light_inputs.WARPED], picture) and torch.equal(
        planes[light_inputs.FILLED], picture
    )
    assert (planes[7] == 1).all()  # a tenth of the width
    assert (planes[light_inputs.PREVIOUS] == 0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_crop_is_packed_in_one_pass_like_its_planes(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    height, width, rows, columns = 90, 130, slice(16, 90), slice(0, 120)
    warped, left, filled, previous = frames_to_uint8(torch.rand(4, 3, height, width, generator=generator))
    coverage, disparity = torch.rand(2, height, width, generator=generator)
    flow = 20 * torch.randn(2, height, width, generator=generator)
    planes = stack_inputs(
        *(frames_from_uint8(warped[None])[0], coverage[None], frames_from_uint8(left[None])[0]),
        *(disparity[None], frames_from_uint8(filled[None])[0], width),
    )
    planes[light_inputs.PREVIOUS] = warp_previous(frames_from_uint8(previous[None]), flow[None])[0]
    margin = Margin(56, 0, 0, 56)
    expected = pack_planes(planes[None, :, rows, columns], margin)
    images = [frame if dtype == torch.uint8 else frame / 255 for frame in (warped, left, filled, previous)]
    warped, left, filled, previous = images
    packed = pack_crop(
        *(warped.numpy(), coverage.numpy(), left.numpy(), disparity.numpy(), filled.numpy()),
        *(previous.numpy(), flow, rows, columns, margin),
    )
    for ours, theirs in zip(packed, expected, strict=True):
        # torch scales positions to [-1, 1] to sample them, which rounds them by up to 1e-5 px.
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(1, 1, 1, 3), (1, 2, 5, 4), (2, 7, 6, 40)])
def test_layers_without_compilation_equal_convolutions(size: tuple[int, ...]) -> None:
    batch, height, width, channels = size
    pixels = torch.rand(size, generator=torch.Generator().manual_seed(0))
    planes = pixels.permute(0, 3, 1, 2)
    near = torch.nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
    double = torch.nn.ConvTranspose2d(channels, 3, 2, stride=2)
    halve = torch.nn.Conv2d(channels, 5, 2, stride=2)
    with torch.inference_mode():
        torch.testing.assert_close(light_network._depthwise(near, pixels).permute(0, 3, 1, 2), near(planes))
        doubled = light_network._double(double, pixels)
        torch.testing.assert_close(doubled.permute(0, 3, 1, 2), double(planes))
        even = doubled.new_ones(batch, 2 * height, 2 * width, channels) * doubled[..., :1]
        expected = halve(even.permute(0, 3, 1, 2))
        torch.testing.assert_close(light_network._halve(halve, even).permute(0, 3, 1, 2), expected)


def test_previous_frame_is_warped_along_the_flow() -> None:
    previous, flow = torch.rand(1, 3, 6, 9), torch.zeros(1, 2, 6, 9)
    flow[:, 0], flow[:, 1] = 2.0, -1.0  # what lies here was 2 px further right and 1 px higher
    pulled = warp_previous(previous, flow)
    torch.testing.assert_close(pulled[..., :3, 1:, :7], previous[..., :5, 2:])
    assert (pulled[:, 3, 1:, :7] == 1).all()
    assert (pulled[:, :, 0] == 0).all() and (pulled[..., 7:] == 0).all()
    gray = flow_gray(previous[0])
    assert torch.equal(flow_to_previous(gray, gray, 6, 9), torch.zeros(2, 6, 9))


def test_loss_counts_holes_only() -> None:
    truth, hole_mask = torch.rand(2, 3, 16, 16), torch.zeros(2, 1, 16, 16)
    hole_mask[..., 4:8, 4:8] = 1
    wrong_elsewhere = torch.where(hole_mask == 1, truth, truth + 1)
    value, parts = inpainting_loss(truth + 0.1, truth, hole_mask)
    assert float(parts["colour"]) == pytest.approx(0.1)
    assert float(parts["gradient"]) == pytest.approx(0.0, abs=1e-6)
    assert float(parts["coarse"]) == pytest.approx(0.2)
    assert float(value) == pytest.approx(0.2)
    assert float(inpainting_loss(wrong_elsewhere, truth, hole_mask)[1]["colour"]) == 0
    assert float(inpainting_loss(truth + 1, truth, 0 * hole_mask)[0]) == 0


def test_edge_loss_is_haarpsis_structure() -> None:
    generator = torch.Generator().manual_seed(2)
    truth, whole = torch.rand(1, 3, 32, 32, generator=generator), torch.ones(1, 1, 32, 32)
    assert float(edge_loss(truth, truth, whole)) == 0
    flat = edge_loss(truth.mean((2, 3), keepdim=True).expand_as(truth), truth, whole)
    blurred = edge_loss(torch.nn.functional.avg_pool2d(truth, 5, 1, 2), truth, whole)
    assert 0 < float(blurred) < float(flat) < 1
    assert float(edge_loss(1 - truth, truth, whole)) < 1e-6  # strengths are compared, not signs
    assert float(edge_loss(truth.flip(-1), truth, 0 * whole)) == 0
    step = torch.zeros(1, 3, 32, 32)
    step[..., 16:] = 0.1
    once, twice = (size**2 / (size**2 + 30 / 255**2) for size in (0.1, 0.2))
    # Strengths across a step: 1; 1 2 1; and as weights 1 2 3 4 3 2 1, which add up to 16.
    expected = (4 * once + 3 * once + 4 * twice + 3 * once) / 16 / 2
    assert float(edge_loss(0 * step, step, whole)) == pytest.approx(expected, abs=1e-5)


def test_discriminator_and_generator_losses_are_adversarial() -> None:
    torch.manual_seed(0)
    judge, hole_mask = Discriminator(), torch.zeros(2, 1, 32, 48)
    hole_mask[..., 8:24, 8:24] = 1
    with torch.no_grad():
        verdict, share = judge(torch.rand(2, 3, 32, 48), hole_mask)
    assert verdict.shape == share.shape == (2, 1, 8, 12) and share.sum() == 2 * 16
    assert float(generator_loss(verdict + 1, share)) < float(generator_loss(verdict, share))
    assert float(discriminator_loss(verdict * 0 - 1, verdict * 0 + 1, share)) == 0
    assert float(discriminator_loss(verdict * 0, verdict * 0, share)) == 2
    assert float(generator_loss(verdict, 0 * share)) == 0


def test_weights_survive_save_and_load(tmp_path: Path) -> None:
    model, warped = loud(), cards()
    save_light(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    again = inpaint_shot(load_light(tmp_path, "cpu"), [warped])
    assert torch.equal(again, inpaint_frames(model, warped, None)[0])


def load_error(folder: Path | None) -> str:
    with pytest.raises(UserError) as refused:
        load_light(folder, "cpu")
    return str(refused.value)


def test_folders_without_such_weights_are_refused(tmp_path: Path) -> None:
    assert "pass --model" in load_error(None)
    assert "config.json" in load_error(tmp_path)
    save_light(loud(), tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"

    kept = config.read_text()
    for content in ("{", "[]", json.dumps({"kind": light.KIND, "channels": [4, 6, 9]})):
        config.write_text(content)
        assert str(tmp_path) in load_error(tmp_path)
    config.write_text(kept.replace("light", "depth"))
    assert "'depth 2', not 'light 2'; train it again" in load_error(tmp_path)
    config.write_text(kept)
    weights.write_bytes(b"no weights")
    assert "train it again" in load_error(tmp_path)
    weights.unlink()
    assert "model.safetensors" in load_error(tmp_path)


def test_wrong_arrays_are_refused(inpainter: Inpainter) -> None:
    warped = cards()
    nan: Tensor = warped.disparity * float("nan")
    with pytest.raises(ValueError, match="disparity"):
        inpaint_shot(inpainter, [warped._replace(disparity=nan)])
