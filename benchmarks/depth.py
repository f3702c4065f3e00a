"""Measure how well depth estimators order the scene, and how fast they are.

    python benchmarks/depth.py FILM [FILM ...] [--frames 60] [--depth motion exported:FILE hf:FOLDER]
    python benchmarks/depth.py FILM --speed [--frames 8] [--depth motion exported:FILE hf:FOLDER random:small]

Quality needs side-by-side stereo films. The ground truth is the block matcher's disparity where it passes the
left-right check. The score is Spearman's rank correlation, averaged over every eighth frame; baselines are a
vertical ramp and the flow magnitude.

Speed takes any film. Each estimator runs in a process of its own, on the frames of the film at its size, kept
in memory. Peak memory is the kernel's high-water mark of that process (VmHWM), the frames included.
`random:small`, `random:base` and `random:large` are Depth Anything V2 with random weights; `random:vits`,
`random:vitb` and `random:vitl` Video Depth Anything, whose windows are used best by 24, 46, 68 ... frames;
`random:depthcrafter` is DepthCrafter, whose windows of 110 frames overlap by 25: add 30 % to the time.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from aligned_views import align_views
from command import existing, make_parser, run
from machine import machine
from scipy.stats import spearmanr
from torch import Tensor

from secondeye.depth.estimators import make_depth_estimator
from secondeye.film.packing import crop_and_resize, unpack
from secondeye.imaging.arrays import frames_from_uint8, resize
from secondeye.imaging.optical_flow import dense_flow, flow_magnitude
from secondeye.matching import make_matcher
from secondeye.matching.consistency import match_both_ways
from secondeye.system.process import best_device
from secondeye.video.read import decode_film

HEIGHT, WIDTH, EVERY = 216, 384, 8


def main() -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("films", type=existing, nargs="+")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--depth", nargs="+", default=["motion"], help="as of secondeye convert")
    parser.add_argument("--speed", action="store_true", help="measure time and memory")
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(time_estimator(options.films[0], options.depth[0], options.frames)))
    elif options.speed:
        print(f"{machine()}\n\n| estimator | frame | map | s per frame | peak, GiB |\n|---|---|---|---|---|")
        for name in options.depth:
            print(f"| {shown(name)} | {measure_speed(options.films[0], name, options.frames)} |", flush=True)
    else:
        names = " | ".join(map(shown, options.depth))
        print(f"{machine()}\n\n| film | vertical ramp | flow magnitude | {names} | confidence of the first |")
        print("|---|---|---|---|" + "---|" * len(options.depth))
        for film in options.films:
            figures = " | ".join(f"{value:.2f}" for value in score(film, options.frames, options.depth))
            print(f"| {film.name} | {figures} |", flush=True)


def shown(name: str) -> str:
    """Return the name of an estimator without the folders of a path."""
    kind, _, source = name.partition(":")
    return f"{kind}:{Path(source).name}" if Path(source).is_absolute() else name


def measure_speed(film: Path, name: str, frames: int) -> str:
    """Return the cells of an estimator's row, measured in another process."""
    with tempfile.TemporaryDirectory() as folder:
        if name.startswith("random:"):
            name = write_random_weights(Path(folder), name.removeprefix("random:"))
        command = [sys.executable, __file__, str(film), "--child", "--depth", name, "--frames", str(frames)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row = json.loads(done.stdout.splitlines()[-1])
    return f"{row['frame']} | {row['map']} | {row['seconds']:.2f} | {row['gib']:.2f}"


def time_estimator(film: Path, name: str, frames: int) -> dict[str, str | float]:
    """Return the sizes of frame and map, the seconds per frame without loading, and this process's peak."""
    images = torch.from_numpy(np.stack([frame.rgb for frame in islice(decode_film(film), frames)]))
    estimator = make_depth_estimator(name, None, best_device())
    started = time.perf_counter()
    maps = [estimate.depth for estimate in estimator(images.split(1))]
    seconds = (time.perf_counter() - started) / len(images)
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 2**20
    sizes = {
        "frame": f"{images.shape[2]}x{images.shape[1]}",
        "map": f"{maps[0].shape[3]}x{maps[0].shape[2]}",
    }
    return {**sizes, "seconds": seconds, "gib": peak}


def write_random_weights(folder: Path, size: str) -> str:
    """Write random weights, and return the estimator that has them as --depth takes it."""
    from secondeye.depth.video_depth_network import CONFIGURATIONS, VideoDepthNetwork
    from secondeye.depth.video_depth_weights import released_name

    if size == "depthcrafter":
        return f"depthcrafter:{write_random_depthcrafter(folder)}"
    if size not in CONFIGURATIONS:
        return f"hf:{write_random_network(folder, size)}"
    parts: dict[str, list[Tensor]] = {}
    for name, tensor in VideoDepthNetwork(CONFIGURATIONS[size]).state_dict().items():
        finite = torch.zeros_like(tensor) if name.endswith(".pe") else tensor  # not initialised
        parts.setdefault(released_name(name)[0], []).append(finite)
    path = folder / f"{size}.pth"
    torch.save({name: torch.cat(tensors) for name, tensors in parts.items()}, path)
    return f"video-depth-anything:{path}"


def write_random_depthcrafter(folder: Path) -> Path:
    """Write DepthCrafter and the parts of Stable Video Diffusion that it needs, with random weights."""
    from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from secondeye.inpaint.tiny import make_scheduler

    UNetSpatioTemporalConditionModel().half().save_pretrained(folder / "DepthCrafter")
    svd = folder / "stable-video-diffusion-img2vid-xt"
    AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        scaling_factor=0.18215,
    ).save_pretrained(svd / "vae")
    config = CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        projection_dim=1024,
        num_hidden_layers=32,
        num_attention_heads=16,
        patch_size=14,
        hidden_act="gelu",
    )
    CLIPVisionModelWithProjection(config).half().save_pretrained(svd / "image_encoder")
    make_scheduler().save_pretrained(svd / "scheduler")
    (svd / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}')
    return folder


def write_random_network(folder: Path, size: str) -> Path:
    """Write Depth Anything V2 of the size `small`, `base` or `large` with random weights."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    width, layers, heads, neck, fusion = {
        "small": (384, 12, 6, [48, 96, 192, 384], 64),
        "base": (768, 12, 12, [96, 192, 384, 768], 128),
        "large": (1024, 24, 16, [256, 512, 1024, 1024], 256),
    }[size]
    backbone = {
        "model_type": "dinov2",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": 518,
        "patch_size": 14,
        "out_indices": [layers * quarter // 4 for quarter in (1, 2, 3, 4)],
        "reshape_hidden_states": False,
    }
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=width,
        neck_hidden_sizes=neck,
        fusion_hidden_size=fusion,
        head_hidden_size=32,
    )
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    preprocessor = {
        "image_processor_type": "DPTImageProcessor",
        "size": {"height": 518, "width": 518},
        "keep_aspect_ratio": True,
        "ensure_multiple_of": 14,
        "resample": 3,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def score(film: Path, frames: int, names: Sequence[str]) -> list[float]:
    """Return the rank correlations of ramp, flow and estimators, and the mean confidence of the first."""
    eyes = [unpack(frame.rgb, "sbs") for frame in islice(decode_film(film), frames)]
    left, right = (
        frames_from_uint8(
            torch.from_numpy(
                np.stack([crop_and_resize(pair[side], HEIGHT, WIDTH, Fraction(1)) for pair in eyes])
            )
        )
        for side in (0, 1)
    )
    near, far = align_views(left, right, EVERY)
    matcher = make_matcher("block", round(0.2 * WIDTH))
    disparity, known = match_both_ways(matcher, near[::EVERY], far[::EVERY], tolerance_px=1.0)
    ramp = torch.linspace(0, 1, HEIGHT).view(1, 1, -1, 1).expand_as(disparity)
    maps, confidences = [ramp, flow_magnitude_frames(near)[::EVERY]], []
    for name in names:
        estimates = list(make_depth_estimator(name, None, best_device())(iter(near.split(8))))
        depth = torch.cat([estimate.depth for estimate in estimates])
        maps.append(resize(depth, *near.shape[-2:])[::EVERY])
        confidences.append(float(np.mean([estimate.confidence for estimate in estimates])))
    return [*(rank_correlation(guess, disparity, known) for guess in maps), confidences[0]]


def flow_magnitude_frames(frames: Tensor) -> Tensor:
    """Return the magnitude of the flow to the next frame, [T, 1, H, W] px."""
    gray = (frames.mean(1) * 255).round().byte().numpy()
    sizes = [
        flow_magnitude(dense_flow(here, there))
        for here, there in zip(gray, [*gray[1:], gray[-2]], strict=True)
    ]
    return torch.from_numpy(np.stack(sizes))[:, None]


def rank_correlation(guess: Tensor, truth: Tensor, known: Tensor) -> float:
    """Return Spearman's correlation where the ground truth is known, averaged over frames."""
    frames = zip(guess, truth, known, strict=True)
    return float(np.mean([spearmanr(g[k].numpy(), t[k].numpy()).statistic for g, t, k in frames]))


if __name__ == "__main__":
    run(main)
