"""Plans of the diffusion inpainter: size, tiles, windows and groups, from the film's size and the memory."""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secondeye.conversion.memory import reserved_bytes
from secondeye.inpaint import InpaintOptions, InpaintPlan, PlannedInpainter, make_inpainter
from secondeye.inpaint.choose_plan import Network, choose_plan
from secondeye.inpaint.diffusion import Diffusion
from secondeye.inpaint.memory import MemoryModel, measure_modules
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.plan import GIB
from secondeye.inpaint.tiny import make_tiny
from secondeye.inpaint.weights import load_pipeline
from secondeye.inpaint.working_size import choose_grid, cut_tiles, image_area_px, padded, working_size
from secondeye.system.errors import UserError
from secondeye.system.memory import free_memory_bytes
from secondeye.video.encoders import Encoding

SVD_AREA = image_area_px(96)
# Stable Video Diffusion in float16 with its autoencoder in float32, as `measure_modules` counts them.
SVD = Network(25, SVD_AREA, 8, "float16", MemoryModel(int(4.4 * GIB), 27 * 320 * 2, 8 * 128 * 4))
BESIDE = replace(
    SVD,
    memory=replace(SVD.memory, reserved_bytes=partial(reserved_bytes, encoding=Encoding(preset="medium"))),
)  # on one memory
FILMS = {"720p": (720, 1280), "1080p": (1080, 1920), "1440p": (1440, 2560), "4K": (2160, 3840)}
SIDES = st.integers(64, 2400)


@pytest.mark.parametrize(
    ("film", "tiles"), [("720p", (1, 2)), ("1080p", (2, 2)), ("1440p", (2, 4)), ("4K", (3, 6))]
)
def test_films_are_inpainted_at_full_size(film: str, tiles: tuple[int, int]) -> None:
    size = FILMS[film]
    plan = choose_plan(*size, SVD, None, 70 * GIB)
    assert (plan.height, plan.width) == size and (plan.tile_rows, plan.tile_columns) == tiles
    assert plan.tile_height * plan.tile_width <= SVD_AREA
    assert (plan.window_frames, plan.overlap_frames, plan.decode_frames) == (25, 3, 8)
    assert plan.passes == 8 * tiles[0] * tiles[1]


@settings(deadline=None, max_examples=60)
@given(SIDES, SIDES, st.integers(1, 4), st.integers(1, 4))
def test_frames_are_reduced_no_further_than_needed(height: int, width: int, rows: int, columns: int) -> None:
    """Down to the network's area and never below it, by the same share in both directions."""
    small = working_size(height, width, rows, columns, SVD_AREA)
    assert small[0] <= height and small[1] <= width
    assert abs(small[0] * width - small[1] * height) <= height + width  # each side is rounded up
    if small != (height, width):
        areas = [
            (side[0] + 64 * (rows - 1)) * (side[1] + 64 * (columns - 1)) / (rows * columns)
            for side in (small, (small[0] - 1, small[1] - 1))
        ]
        assert areas[0] >= SVD_AREA > areas[1]


def test_one_tile_has_the_size_that_the_network_was_made_for() -> None:
    sizes = [working_size(*size, 1, 1, SVD_AREA) for size in ((720, 1280), (1080, 1920), (576, 1024))]
    assert sizes == [(576, 1024)] * 3
    assert working_size(240, 320, 1, 1, SVD_AREA) == (240, 320)
    assert working_size(804, 1920, 1, 1, SVD_AREA) == (497, 1187)


@settings(deadline=None, max_examples=25)
@given(SIDES, SIDES)
def test_tiles_are_as_few_as_the_network_allows(height: int, width: int) -> None:
    grid = choose_grid(height, width, SVD_AREA)
    assert grid is not None
    rows, columns = grid
    tiles = cut_tiles(height, width, rows, columns)
    assert working_size(height, width, rows, columns, SVD_AREA) == (height, width)
    area = 64 * tiles[0].height * tiles[0].width
    assert area <= SVD_AREA or (len(tiles) == 1 and height * width <= SVD_AREA)
    assert len(tiles) * area <= 1.6 * padded(height) * padded(width)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(list(FILMS.values())), st.floats(0.1, 80), st.sampled_from([None, 1, 2, 3]))
def test_plans_fit_the_memory(size: tuple[int, int], room_gib: float, tiles: int | None) -> None:
    room = int(room_gib * GIB)
    try:
        plan = choose_plan(*size, SVD, tiles, room)
    except UserError:
        assert room_gib < 6
        return
    assert plan.memory_bytes <= room + SVD.memory.weight_bytes
    assert plan.height * plan.width >= min(SVD_AREA, size[0] * size[1])


@pytest.mark.parametrize("network", [SVD, BESIDE], ids=["alone", "beside a conversion"])
@pytest.mark.parametrize("aspect", [(16, 9), (9, 16)])
def test_a_larger_film_or_more_memory_never_means_a_smaller_size(
    network: Network, aspect: tuple[int, int]
) -> None:
    scales = (53, 64, 70, 80, 105, 120, 140, 160, 200, 240, 320, 480)  # 477 to 4320 px
    sizes = [(aspect[1] * scale, aspect[0] * scale) for scale in scales]
    before = [0] * len(sizes)
    seen = set()
    for room_gib in (3, 4, 5, 6, 7, 8, 9.5, 11, 13, 16, 20, 27, 35, 60):
        areas = []
        for size, least in zip(sizes, before, strict=True):
            try:
                plan = choose_plan(*size, network, None, int(room_gib * GIB))
            except UserError:
                assert not least, "more memory must not lead to a refusal"
                break  # larger films are refused as well
            assert plan.memory_bytes <= room_gib * GIB + network.memory.weight_bytes
            areas.append(plan.height * plan.width)
            assert areas[-1] >= least, (size, room_gib)
            seen.add((plan.height, plan.width) == plan.frame_size)
        assert areas == sorted(areas), room_gib
        before = areas + [0] * (len(sizes) - len(areas))
    assert seen == {True, False}


def test_a_film_larger_than_the_memory_allows_keeps_the_size_and_shortens_the_window() -> None:
    full, larger = (choose_plan(*FILMS[name], SVD, None, 8 * GIB) for name in ("1440p", "4K"))
    assert (full.height, full.window_frames, full.decode_frames) == (1440, 25, 2)
    assert 1440 <= larger.height < 2160 and 16 <= larger.window_frames < 25 and larger.decode_frames == 2


def test_short_memory_costs_the_group_then_the_size_then_the_window() -> None:
    plans = [choose_plan(2160, 3840, SVD, None, room * GIB) for room in (40, 11, 8, 4)]
    assert [plan.decode_frames for plan in plans] == [8, 2, 2, 1]
    assert [plan.height == 2160 for plan in plans] == [True, True, False, False]
    assert [plan.window_frames == 25 for plan in plans] == [True, True, False, False]


def test_an_error_states_the_least_memory_that_suffices() -> None:
    with pytest.raises(UserError) as refused:
        choose_plan(4320, 7680, SVD, None, 2 * GIB)
    (least, given) = map(float, re.findall(r"([\d.]+) GiB", str(refused.value)))
    assert given == 6.4
    choose_plan(4320, 7680, SVD, None, int((least + 0.1) * GIB) - SVD.memory.weight_bytes)
    with pytest.raises(UserError):
        choose_plan(4320, 7680, SVD, None, int((least - 0.1) * GIB) - SVD.memory.weight_bytes)


@pytest.mark.parametrize(("frames", "measured_gib"), [(8, 17), (4, 8.4), (2, 4.2)])
def test_the_released_decoder_takes_what_was_measured(frames: int, measured_gib: float) -> None:
    """On a GPU, 576 x 1024 px in float32."""
    estimate = frames * SVD.memory.decode_bytes(SVD_AREA, SVD_AREA)
    assert measured_gib * GIB <= estimate <= 1.15 * measured_gib * GIB


def test_on_a_gpu_the_modules_count_as_measured_there_also_while_offloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipeline = make_tiny(frames=4)
    on_cpu = measure_modules(pipeline, False)
    monkeypatch.setattr(
        StereoInpaintPipeline, "execution_device", property(lambda self: torch.device("cuda"))
    )
    on_gpu = measure_modules(pipeline, True)
    assert on_gpu.pixel_bytes == 8 * 64 * 4 // 4**2 == on_cpu.pixel_bytes // 2
    assert on_gpu.weight_bytes < on_cpu.weight_bytes and on_gpu.latent_bytes == on_cpu.latent_bytes


def test_what_the_caller_takes_is_part_of_the_plan(folder: Path) -> None:
    """The budget, the estimate and the plan itself."""
    alone = Diffusion(load_pipeline(folder, "cpu"), InpaintOptions(memory_bytes=GIB))
    taken = GIB - int(0.9 * alone.plan(181, 190).memory_bytes)
    options = InpaintOptions(memory_bytes=GIB, reserved_bytes=lambda frame_px: taken)
    beside = Diffusion(alone.pipeline, options)
    assert alone.plan(181, 190).memory_bytes < GIB // 2 < taken < beside.plan(181, 190).memory_bytes <= GIB


def test_a_plan_reads_well() -> None:
    line = str(choose_plan(576, 1024, replace(SVD, steps=1), None, 70 * GIB))
    assert "1x1 tile of" in line and "1 pass a window" in line and "8 frames decoded together" in line
    assert "2x2 tiles" in str(choose_plan(1080, 1920, SVD, None, 70 * GIB))


def test_tiles_can_be_forced() -> None:
    plan = choose_plan(1080, 1920, SVD, 1, 70 * GIB)
    assert (plan.height, plan.width, plan.tiles) == (576, 1024, 1)
    plan = choose_plan(1080, 1920, SVD, 4, 70 * GIB)
    assert (plan.height, plan.width, plan.tiles) == (1080, 1920, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("tiny")
    make_tiny(frames=4).save_pretrained(path)
    return path


def test_plan_is_recorded_and_reused(folder: Path) -> None:
    inpainter = make_inpainter("diffusion", folder, "cpu", InpaintOptions(steps=3))
    assert isinstance(inpainter, PlannedInpainter) and isinstance(inpainter, Diffusion)
    plan = inpainter.plan(181, 190)
    recorded = json.loads(json.dumps(plan.describe()))
    assert InpaintPlan.from_dict(recorded) == plan and plan.steps == 3 and "\n" not in str(plan)
    weights = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    assert plan.memory_bytes > measure_modules(inpainter.pipeline, False).weight_bytes > 0.9 * weights
    inpainter.reuse(replace(plan, decode_frames=1))
    assert inpainter.plan(181, 190).decode_frames == 1
    with pytest.raises(UserError, match="float16"):
        inpainter.reuse(replace(plan, dtype="float16"))
    with pytest.raises(UserError, match="another version"):
        InpaintPlan.from_dict({**recorded, "unknown": 1})


def test_too_little_memory_is_said_before_the_work(folder: Path) -> None:
    inpainter = make_inpainter("diffusion", folder, "cpu", InpaintOptions(memory_bytes=2**20))
    assert isinstance(inpainter, PlannedInpainter)
    with pytest.raises(UserError, match="GiB"):
        inpainter.plan(181, 190)


def test_options_that_cannot_be_followed_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="offload"):
        make_inpainter("diffusion", folder, "cpu", InpaintOptions(offload=True))
    for option in ("steps", "tiles", "memory_bytes"):
        with pytest.raises(UserError, match="1 or more"):
            InpaintOptions(**{option: 0})


@pytest.mark.parametrize("version", [1, 2])
def test_free_memory_knows_the_limit_of_a_container(tmp_path: Path, version: int) -> None:
    names = ("limit_in_bytes", "usage_in_bytes", "total_inactive_file") if version == 1 else ()
    limit, usage, cache = names or ("max", "current", "inactive_file")
    group = tmp_path / "memory" if version == 1 else tmp_path
    group.mkdir(exist_ok=True)
    (group / f"memory.{limit}").write_text("1000000\n")
    (group / f"memory.{usage}").write_text("700000\n")
    assert free_memory_bytes(tmp_path) == 300_000
    (group / "memory.stat").write_text(f"anon 1\n{cache} 200000\n")
    assert free_memory_bytes(tmp_path) == 500_000
    (group / f"memory.{limit}").write_text("max\n")
    assert free_memory_bytes(tmp_path) > psutil.virtual_memory().available / 2
