"""params.yaml, typed. The only reader of that file; there are no defaults in code."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from secondeye.system.errors import UserError

Section = TypeVar("Section")

PAIR_MATCHERS = ("block", "flow")
MATCHERS = ("video", *PAIR_MATCHERS, "exported")
DIFFUSION_SIZES = ("tiny", "small", "svd")
DIFFUSION_METHODS = ("many_steps", "one_step")
LR_SCHEDULERS = ("constant", "cosine")
PRECISIONS = ("float32", "bfloat16", "float16")


def _require(section: object, **limits: tuple[float, float]) -> None:
    """Raise ValueError naming the first value outside its limits."""
    for name, (low, high) in limits.items():
        value = getattr(section, name)
        if not low <= value <= high:
            raise ValueError(f"{name} must be {low:g} to {high:g}, got {value}")


def _require_one_of(section: object, choices: Sequence[str], name: str) -> None:
    value = getattr(section, name)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def _require_multiples(section: object, of: int, *names: str) -> None:
    """Raise ValueError naming the first value that is no multiple."""
    for name in names:
        if getattr(section, name) % of:
            raise ValueError(f"{name} must be a multiple of {of}, got {getattr(section, name)}")


@dataclass(frozen=True)
class Dataset:
    """What all stages of the dataset share."""

    max_bad_fraction: float  # a stage fails when more of its clips are bad, [0, 1]

    def __post_init__(self) -> None:
        _require(self, max_bad_fraction=(0, 1))


@dataclass(frozen=True)
class Split:
    """Films into clips."""

    height: int  # px, working size of one eye
    width: int  # px
    cut_threshold: float  # PySceneDetect's adaptive_threshold
    min_shot_frames: int  # shorter shots are not told apart
    window_frames: int  # frames of one training window; shorter clips are dropped
    max_stride: int  # training may skip up to this many frames
    max_seconds: float  # longer shots become several clips
    trim_seconds: float  # left out on both sides of every cut and fade
    min_brightness: float  # mean of a shot's luma, [0, 1]; darker ones are dropped as black
    min_motion: (
        float  # levels of 255 that pixels of a shot change from frame to frame; calmer ones are dropped
    )

    def __post_init__(self) -> None:
        _require(
            self, height=(16, 8640), width=(32, 15360), cut_threshold=(0.1, 100), min_shot_frames=(1, 10**6)
        )
        _require(self, window_frames=(1, 10**4), max_stride=(1, 100), max_seconds=(0.1, 3600))
        _require(self, trim_seconds=(0, 60), min_brightness=(0, 1), min_motion=(0, 255))


@dataclass(frozen=True)
class Shift:
    """Where disparity zero lies."""

    sampled_frames: int  # per clip
    max_disparity_percent: float  # of the width, searched to both sides
    margin_px: int  # left between zero and the smallest disparity
    min_support: float  # share of corners that must match, [0, 1]
    max_vertical_percent: float  # of the height; clips with more vertical misalignment are rejected
    max_colour_difference: float  # levels of 255 left between the eyes after the global correction
    min_width_percent: float  # of the width, that both eyes must share after the shift

    def __post_init__(self) -> None:
        _require(
            self,
            max_vertical_percent=(0, 25),
            max_colour_difference=(0, 255),
            min_width_percent=(0, 100),
            sampled_frames=(1, 1000),
            max_disparity_percent=(1, 50),
            margin_px=(0, 100),
            min_support=(0, 1),
        )


@dataclass(frozen=True)
class Exported:
    """A matcher that was exported to a file: how it wants its pictures, and what its answer means."""

    path: str  # .pt2 (torch.export) or .onnx; "" for none
    sign: int  # 1 where its answer is x_left - x_right, -1 where it is x_right - x_left
    scale: float  # px for one unit of its answer
    multiple: int  # px that height and width must be divisible by
    min_size: int  # px that height and width must at least have
    window_frames: int  # frames it takes at once
    overlap_frames: int  # that two windows share

    def __post_init__(self) -> None:
        _require(self, scale=(1e-6, 1e6), multiple=(1, 1024), min_size=(1, 16384), window_frames=(1, 10**4))
        _require(self, overlap_frames=(0, self.window_frames - 1))
        if self.sign not in (1, -1):
            raise ValueError(f"sign must be 1 or -1, got {self.sign}")


@dataclass(frozen=True)
class Match:
    """Stereo matching."""

    matcher: str  # video, block (frame by frame), flow (the evaluation checks pairs with it), exported
    max_disparity_percent: float  # of the width
    tolerance_px: float  # of the left-right check
    exported: Exported

    def __post_init__(self) -> None:
        _require(self, max_disparity_percent=(1, 50), tolerance_px=(0, 100))
        _require_one_of(self, MATCHERS, "matcher")


@dataclass(frozen=True)
class Splat:
    """The left view seen from the right."""

    weight_exponent_per_px: float  # at 1024 px width; the paper's sqrt(2) is 0.5

    def __post_init__(self) -> None:
        _require(self, weight_exponent_per_px=(0, 10))


@dataclass(frozen=True)
class Filter:
    """Which clips are good enough."""

    min_psnr_db: float
    min_matched_share: float  # [0, 1]
    max_occlusion_share: float  # [0, 1]
    min_disparity_range_percent: float  # of the width; flatter clips teach nothing
    min_ssim: float  # [-1, 1]
    min_sharpness: float  # levels of 255
    max_sharpness_ratio: float  # one eye may be sharper than the other by this factor
    max_colour_difference: float  # levels of 255
    duplicate_bits: int  # of 64: frames whose perceptual hashes differ in no more are the same picture
    test_share: float  # of films, where sources.csv does not say; of time, with fewer than three films

    def __post_init__(self) -> None:
        _require(self, min_psnr_db=(0, 100), min_matched_share=(0, 1), max_occlusion_share=(0, 1))
        _require(self, min_disparity_range_percent=(0, 100), test_share=(0, 1), min_ssim=(-1, 1))
        _require(self, min_sharpness=(0, 255), max_sharpness_ratio=(1, 1000), max_colour_difference=(0, 255))
        _require(self, duplicate_bits=(0, 16))  # beyond, unlike pictures agree


@dataclass(frozen=True)
class Validate:
    """What a dataset must have besides passing the expectations."""

    min_accepted_clips: int
    require_licences: bool  # every film with a kept clip must have its licence in sources.csv

    def __post_init__(self) -> None:
        _require(self, min_accepted_clips=(1, 10**9))


@dataclass(frozen=True)
class Synthetic:
    """Shots of the synthetic world to learn from; the sample films show none of them."""

    shots: int
    frames: int  # a shot
    height: int  # px
    width: int  # px
    seed: int

    def __post_init__(self) -> None:
        _require(self, shots=(0, 10**7), frames=(2, 10**4), height=(16, 8640), width=(32, 15360))
        _require(self, seed=(0, 2**31))


@dataclass(frozen=True)
class Optimizer:
    """How long and how fast something is trained."""

    steps: int
    batch_size: int  # samples a step, over all processes
    gradient_accumulation_steps: (
        int  # parts that each process goes through its share of a batch in, to save memory
    )
    learning_rate: float  # the largest; it rises at first
    lr_scheduler: str  # after that: constant, or cosine, which falls to almost nothing
    ema_decay: float  # decay of the exponential moving average of the weights, which is kept; 0 is none
    precision: str  # float32, or what most is computed in while weights stay float32: bfloat16, float16
    max_skipped_steps: int  # left out as their loss is not finite; one more ends the training
    checkpoint_every: int  # a killed training loses fewer steps than this
    seed: int

    def __post_init__(self) -> None:
        _require(
            self,
            steps=(1, 10**9),
            batch_size=(1, 10**6),
            gradient_accumulation_steps=(1, 10**6),
            learning_rate=(0, 1),
        )
        _require(self, ema_decay=(0, 0.999999), max_skipped_steps=(0, 10**6))
        _require(self, checkpoint_every=(1, 10**9), seed=(0, 2**31))
        _require_one_of(self, LR_SCHEDULERS, "lr_scheduler")
        _require_one_of(self, PRECISIONS, "precision")


@dataclass(frozen=True)
class TrainDepth:
    """The depth student."""

    height: int  # px, at which it works; a multiple of 32
    width: int  # px
    frames: int  # consecutive frames of one sample
    motion_dropout: float  # share of samples that learn without flow, as a static shot is, [0, 1]
    optimizer: Optimizer

    def __post_init__(self) -> None:
        _require(self, height=(32, 2048), width=(32, 2048), frames=(2, 64), motion_dropout=(0, 1))
        _require_multiples(self, 32, "height", "width")


@dataclass(frozen=True)
class TrainLight:
    """The one-step inpainter in pixel space."""

    height: int  # px of the crops it learns from
    width: int  # px
    mono_share: float  # of samples made from one eye alone, by warping there and back, [0, 1]
    discriminator_start: float  # share of the steps after which a second network judges it, too; 1 is never
    discriminator_weight: float  # of its judgement beside the painting loss; 0 is none
    optimizer: Optimizer

    def __post_init__(self) -> None:
        _require(self, height=(32, 4096), width=(32, 4096), mono_share=(0, 1))
        _require(self, discriminator_start=(0, 1), discriminator_weight=(0, 100))


@dataclass(frozen=True)
class TrainDiffusion:
    """The stereo video diffusion model: its autoencoder first, then the network."""

    size: str  # tiny, small: trained from nothing; svd: `pretrained`, of which spatial layers alone are tuned
    pretrained: str  # folder or Hugging Face id of Stable Video Diffusion; "" for tiny and small
    method: str  # many_steps: velocities of all noise levels; one_step: the picture at once, as in M2SVid
    height: int  # px of the crops; a multiple of 64
    width: int  # px
    frames: int
    mono_share: float  # as in light
    conditioning_dropout: (
        float  # of samples that the network is told nothing of, for a guidance above 1, [0, 1]
    )
    cached_samples: int  # drawn and encoded once, for all steps to draw from; 0: each step has new ones
    vgg_weights: str  # of VGG16, for one_step's loss on a GPU: a folder or Hugging Face id; "" without LPIPS
    autoencoder: Optimizer  # steps are not used with svd: its autoencoder stays as it is
    network: Optimizer

    def __post_init__(self) -> None:
        _require(self, height=(64, 4096), width=(64, 4096), frames=(2, 256), mono_share=(0, 1))
        _require(self, conditioning_dropout=(0, 1), cached_samples=(0, 10**7))
        _require_multiples(self, 64, "height", "width")
        _require_one_of(self, DIFFUSION_SIZES, "size")
        _require_one_of(self, DIFFUSION_METHODS, "method")
        if (self.size == "svd") != bool(self.pretrained):
            raise ValueError(f"pretrained must name weights for svd, else be empty; got {self.pretrained!r}")
        if self.method == "one_step" and self.conditioning_dropout:
            raise ValueError(f"conditioning_dropout must be 0 for one_step; got {self.conditioning_dropout}")
        if self.method == "one_step" and self.cached_samples:
            raise ValueError(f"cached_samples must be 0 for one_step; got {self.cached_samples}")
        if self.method != "one_step" and self.vgg_weights:
            raise ValueError(f"vgg_weights are for method one_step alone; got {self.vgg_weights!r}")


@dataclass(frozen=True)
class TrainInpaint:
    """Both inpainters; each is trained anew only when its own part changes."""

    light: TrainLight
    diffusion: TrainDiffusion


@dataclass(frozen=True)
class Regions:
    """How the right eye is matched to find what each of its pixels is, where that is not known."""

    matcher: str  # block or flow
    max_disparity_percent: float  # of the width
    tolerance_px: float  # of the left-right check

    def __post_init__(self) -> None:
        _require(self, max_disparity_percent=(1, 50), tolerance_px=(0, 100))
        _require_one_of(self, PAIR_MATCHERS, "matcher")


@dataclass(frozen=True)
class Evaluate:
    """How models are judged on held-out clips."""

    max_frames: int  # of a clip, from its start
    regions: Regions
    vgg_weights: str  # of VGG16, for LPIPS and DISTS: a folder or Hugging Face id; "" leaves both out
    resamples: int  # of the bootstrap over films and clips
    confidence: float  # of the intervals in the report, [0.5, 1)
    seed: int  # of the bootstrap

    def __post_init__(self) -> None:
        _require(self, max_frames=(1, 10**4), resamples=(100, 10**6))
        _require(self, confidence=(0.5, 0.9999), seed=(0, 2**31))


@dataclass(frozen=True)
class Gate:
    """When a challenger becomes champion."""

    min_films: int  # held-out films both must have been scored on
    confidence: float  # of the one-sided interval over films whose lower end must be above zero, [0.5, 1)

    def __post_init__(self) -> None:
        _require(self, min_films=(2, 10**6), confidence=(0.5, 0.9999))


@dataclass(frozen=True)
class Params:
    """All of params.yaml."""

    dataset: Dataset
    split: Split
    shift: Shift
    match: Match
    splat: Splat
    filter: Filter
    validate: Validate
    synthetic: Synthetic
    train_depth: TrainDepth
    train_inpaint: TrainInpaint
    evaluate: Evaluate
    gate: Gate


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read params.yaml; raises Refusal naming every unknown, missing or mistyped key by its dotted name."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; run this in the project's folder")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML ({' '.join(str(error).split())})") from error
    return _build(Params, values, str(path), "")


def _build(kind: type[Section], values: Any, path: str, prefix: str) -> Section:
    where = prefix.rstrip(".") or "the file"
    if not isinstance(values, dict):
        raise UserError(f"{path}: {where} must be a mapping, got {values!r}")
    types = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    missing = [prefix + name for name in names if name not in values]
    unknown = [prefix + str(name) for name in values if name not in names]
    if missing or unknown:
        parts = [f"missing {', '.join(missing)}"] * bool(missing)
        parts += [f"unknown {', '.join(unknown)}"] * bool(unknown)
        raise UserError(f"{path}: {'; '.join(parts)}")
    try:
        return kind(**{name: _value(types[name], values[name], path, prefix + name) for name in names})
    except ValueError as error:
        raise UserError(f"{path}: {prefix}{error}") from error


def _value(kind: type, value: Any, path: str, name: str) -> Any:
    if is_dataclass(kind):
        return _build(kind, value, path, name + ".")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UserError(f"{path}: {name} must be {kind.__name__}, got {type(value).__name__} {value!r}")
    return value
