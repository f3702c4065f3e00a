"""Read params.yaml and validate it. The only reader of that file; code holds no defaults.

params.yaml has every key. A file in presets/ has those that depend on the scale (laptop, small, paper).
"""

import io
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from secondeye.system.errors import UserError
from secondeye.system.files import write_atomic

PairMatcher = Literal["block", "flow"]
Matcher = Literal["video", "block", "flow", "exported"]

Fraction = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
DisparityPercent = Annotated[float, Field(ge=1, le=50)]
TolerancePx = Annotated[float, Field(ge=0, le=100)]
Levels = Annotated[float, Field(ge=0, le=255)]  # of 8-bit colour
Confidence = Annotated[float, Field(ge=0.5, le=0.9999)]
Height = Annotated[int, Field(ge=16, le=8640)]  # px
Width = Annotated[int, Field(ge=32, le=15360)]  # px
Seed = Annotated[int, Field(ge=0, le=2**31)]

# Strict: a bool is not a number and "3" is not 3; an int is accepted for a float.
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DatasetParams:
    """Settings shared by all stages that build the dataset."""

    # A stage fails when a larger fraction of its clips is bad; a film without a good clip counts once.
    max_bad_fraction: Fraction


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Split:
    """Settings for cutting films into clips."""

    height: Height  # working size of one view
    width: Width
    cut_threshold: float = Field(ge=0.1, le=100)  # PySceneDetect's adaptive_threshold
    min_shot_frames: int = Field(ge=1, le=10**6)  # shorter shots are merged
    window_frames: int = Field(ge=1, le=10**4)  # length of a training window; shorter clips are skipped
    max_stride: int = Field(ge=1, le=100)  # largest frame stride that training may draw
    max_seconds: float = Field(ge=0.1, le=3600)  # longer shots become several clips
    trim_seconds: float = Field(ge=0, le=60)  # removed on both sides of every cut and fade
    min_brightness: Fraction  # mean luma of a shot; darker shots are skipped as black
    min_motion: Levels  # mean change between frames; stiller shots are skipped


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Shift:
    """Settings for stereo alignment: zero disparity, vertical offset and colour."""

    sampled_frames: int = Field(ge=1, le=1000)  # per clip
    max_disparity_percent: DisparityPercent  # of the width, search range on both sides
    margin_px: int = Field(ge=0, le=100)  # kept between zero and the smallest disparity
    min_match_ratio: Fraction  # of the corners that must match
    max_vertical_percent: float = Field(ge=0, le=25)  # of the height; a larger misalignment is rejected
    rectify: Literal[
        "auto", "off"
    ]  # auto: views whose rows differ between the corners are rectified, by film
    max_colour_difference: Levels  # between the views, after the global correction
    min_width_percent: Percent  # of the width that both views must share after the shift


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Exported:
    """Input and output conventions of a matcher that was exported to a file."""

    path: str  # .pt2 (torch.export) or .onnx; "" for none
    sign: Literal[1, -1]  # 1: the output is x_left - x_right; -1: x_right - x_left
    scale: float = Field(ge=1e-6, le=1e6)  # px per unit of the output
    multiple: int = Field(ge=1, le=1024)  # px; height and width are padded to a multiple of it
    min_size: int = Field(ge=1, le=16384)  # px; smallest height and width
    window_frames: int = Field(ge=1, le=10**4)  # frames per call
    overlap_frames: int = Field(ge=0)  # shared by two consecutive windows

    @model_validator(mode="after")
    def _check_overlap(self) -> "Exported":
        if self.overlap_frames >= self.window_frames:
            raise ValueError(
                f"overlap_frames must be less than window_frames ({self.window_frames}), "
                f"got {self.overlap_frames}"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Match:
    """Settings for stereo matching."""

    matcher: Matcher  # video uses temporal context; block and flow work frame by frame
    max_disparity_percent: DisparityPercent  # of the width
    tolerance_px: TolerancePx  # of the left-right consistency check
    exported: Exported


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class SplatParams:
    """Settings for forward warping the left view to the right."""

    weight_exponent_per_px: float = Field(ge=0, le=10)  # at 1024 px width; the paper's sqrt(2) is 0.5


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Filter:
    """Thresholds that a clip must pass, and the train/test split."""

    min_psnr_db: Percent
    min_matched_share: Fraction
    well_matched_share: Fraction  # from here on, min_psnr_db applies only to the pixels that agree best
    max_occlusion_share: Fraction
    min_disparity_range_percent: Percent  # of the width; flatter clips have too little depth
    min_ssim: float = Field(ge=-1, le=1)
    min_sharpness: Levels
    max_sharpness_ratio: float = Field(ge=1, le=1000)  # between the two views
    max_colour_difference: Levels
    duplicate_bits: int = Field(ge=0, le=16)  # largest distance of 64-bit perceptual hashes of duplicates
    test_share: Fraction  # of films without a split in sources.csv; of the time if there are under 3 films


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Validate:
    """Requirements on a dataset besides the expectations."""

    min_accepted_clips: int = Field(ge=1, le=10**9)
    require_licences: bool  # sources.csv must give the licence of every film with an accepted clip


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Synthetic:
    """Size of the rendered training set; its scenes differ from those of the sample films."""

    shots: int = Field(ge=0, le=10**7)
    frames: int = Field(ge=2, le=10**4)  # per shot
    height: Height
    width: Width
    seed: Seed


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Optimizer:
    """Settings of one training loop."""

    steps: int = Field(ge=1, le=10**9)
    batch_size: int = Field(ge=1, le=10**6)  # samples per step, summed over all processes
    gradient_accumulation_steps: int = Field(ge=1, le=10**6)  # micro-batches per step and process
    learning_rate: Fraction  # peak value, after the warm-up
    lr_scheduler: Literal["constant", "cosine"]  # after the warm-up
    ema_decay: float = Field(ge=0, le=0.999999)  # of the averaged weights that are saved; 0 disables EMA
    precision: Literal["float32", "bfloat16", "float16"]  # of autocast; weights stay float32
    max_skipped_steps: int = Field(ge=0, le=10**6)  # with a non-finite loss; one more ends the training
    checkpoint_every: int = Field(ge=1, le=10**9)  # steps
    seed: Seed


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainDepth:
    """Settings for training the depth student."""

    height: int = Field(ge=32, le=2048, multiple_of=32)  # px, of the network's input
    width: int = Field(ge=32, le=2048, multiple_of=32)  # px
    frames: int = Field(ge=2, le=64)  # consecutive frames of one sample
    motion_dropout: Fraction  # of samples without optical flow, as in a static shot
    mono_share: Fraction  # of samples of monocular films, where `motion` has a high confidence; 0: none
    initial_weights: Literal["none", "imagenet"]  # imagenet: EfficientNet-Lite0 as encoder, and its weights
    optimizer: Optimizer


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainLight:
    """Settings for training the one-step inpainter in pixel space."""

    height: int = Field(ge=32, le=4096)  # px, of the training crops
    width: int = Field(ge=32, le=4096)  # px
    mono_share: Fraction  # of samples made from a single view by forward and backward warping
    # px per px: ramps of their disparity that fall more steeply are holes; 0: edges are sharpened instead
    mono_max_gradient: Fraction
    discriminator_start: Fraction  # of the steps before the adversarial loss is added; 1 disables it
    discriminator_weight: Percent  # of the adversarial loss; 0 disables it
    optimizer: Optimizer


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainDiffusion:
    """Settings for training the stereo video diffusion model: its autoencoder and its network."""

    size: Literal["tiny", "small", "svd"]  # svd fine-tunes the spatial layers of `pretrained`
    pretrained: str  # folder or Hugging Face id of Stable Video Diffusion; "" for tiny and small
    method: Literal["many_steps", "one_step"]  # v-prediction at all noise levels; one step as in M2SVid
    height: int = Field(ge=64, le=4096, multiple_of=64)  # px, of the training crops
    width: int = Field(ge=64, le=4096, multiple_of=64)  # px
    frames: int = Field(ge=2, le=256)
    max_stride: int = Field(ge=1, le=64)  # of a sample's frames; drawn from 1 on, as far as the clip allows
    border_hole_percent: Percent  # of the width: the views are cropped apart; 0: at the same columns
    mono_share: Fraction  # as in TrainLight
    mono_max_gradient: Fraction  # as in TrainLight
    conditioning: Literal["warp", "splat"]  # the view that the network gets; written into its folder
    # What stands for frames that were inpainted before: the ground truth, of 0 to all frames (paper, section
    # 3.3), or in half of the samples the ground truth as the network would inpaint it (ours)
    first_frames: Literal["ground_truth", "simulated"]
    conditioning_dropout: Fraction  # of samples without conditioning, for classifier-free guidance
    cached_samples: int = Field(ge=0, le=10**7)  # encoded once and reused; 0 encodes fresh ones every step
    # of the frozen autoencoder and image encoder while the network is trained, as in Optimizer; float16 would
    # overflow in Stable Video Diffusion's
    frozen_precision: Literal["float32", "bfloat16"]
    lora_rank: int = Field(ge=0, le=1024)  # of adapters that are trained instead of the layers; 0: the layers
    lora_alpha: int = Field(ge=1, le=4096)  # adapters are scaled by lora_alpha / lora_rank
    vgg_weights: str  # VGG16, for the LPIPS loss of one_step on a GPU: folder or Hugging Face id; "" for none
    autoencoder: Optimizer  # unused with svd, whose autoencoder stays frozen
    network: Optimizer

    @model_validator(mode="after")
    def _check_combinations(self) -> "TrainDiffusion":
        if (self.size == "svd") != bool(self.pretrained):
            raise ValueError(
                f"pretrained must name weights for size svd and be empty otherwise, got {self.pretrained!r}"
            )
        if self.method == "one_step" and self.conditioning_dropout:
            raise ValueError(
                f"conditioning_dropout must be 0 for method one_step, got {self.conditioning_dropout}"
            )
        if self.method == "one_step" and self.cached_samples:
            raise ValueError(f"cached_samples must be 0 for method one_step, got {self.cached_samples}")
        if self.method != "one_step" and self.vgg_weights:
            raise ValueError(f"vgg_weights must be empty unless method is one_step, got {self.vgg_weights!r}")
        return self


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class TrainDeep3D:
    """Settings for training the rival Deep3D."""

    height: int = Field(ge=32, le=2048, multiple_of=32)  # px, of the network's input
    width: int = Field(ge=32, le=2048, multiple_of=32)  # px
    max_shifts: int = Field(ge=2, le=1024)  # that a pixel is chosen from; a wider range has larger steps
    optimizer: Optimizer


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Regions:
    """Settings for matching the true right view to find its visible and disoccluded pixels."""

    matcher: PairMatcher
    max_disparity_percent: DisparityPercent  # of the width
    tolerance_px: TolerancePx  # of the left-right consistency check


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Evaluate:
    """Settings for scoring models on held-out clips."""

    max_frames: int = Field(ge=1, le=10**4)  # per clip, from its start
    regions: Regions
    vgg_weights: str  # VGG16, for LPIPS and DISTS: folder or Hugging Face id; "" disables both
    # Programs that inpaint, by the name they have in reports; see secondeye.inpaint.command.
    inpaint_commands: dict[str, str]
    # Films that both methods need scores on; with fewer there is no verdict, and the gate promotes nothing.
    min_films: int = Field(ge=2, le=10**6)
    resamples: int = Field(ge=100, le=10**6)  # of the bootstrap over films and clips
    confidence: Confidence  # of intervals, verdicts and bold in the report
    seed: Seed  # of the bootstrap


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Gate:
    """Criteria for promoting a challenger to champion."""

    confidence: Confidence  # of the one-sided interval over films, whose lower bound must exceed 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Params:
    """The content of params.yaml."""

    dataset: DatasetParams
    split: Split
    shift: Shift
    match: Match
    splat: SplatParams
    filter: Filter
    validate: Validate
    synthetic: Synthetic
    train_depth: TrainDepth
    train_light: TrainLight
    train_diffusion: TrainDiffusion
    train_deep3d: TrainDeep3D
    evaluate: Evaluate
    gate: Gate


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Return the validated content of params.yaml.

    Raises UserError with one line that names every wrong key, its value and what is allowed.
    """
    return _validate(_read_yaml(path, YAML(typ="safe")), path)


def _validate(values: Any, path: Path) -> Params:
    try:
        # As JSON, since strict validation of Python values accepts no mapping for a section.
        return TypeAdapter(Params).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors()]
        raise UserError(f"{path}: {'; '.join(problems)}") from error


def apply_preset(preset: Path, path: Path = Path("params.yaml")) -> None:
    """Write the values of a preset into params.yaml; comments and other keys stay.

    Raises UserError if the preset is missing or the result is not valid; params.yaml is unchanged then.
    """
    editor = YAML()  # keeps comments
    editor.preserve_quotes = True
    content, text = _read_yaml(path, editor), io.StringIO()
    _update(content, _read_yaml(preset, editor))
    editor.dump(content, text)
    _validate(YAML(typ="safe").load(text.getvalue()), preset)
    write_atomic(path, text.getvalue())


def _update(content: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(content.get(key), dict):
            _update(content[key], value)
        else:
            content[key] = value


def _read_yaml(path: Path, reader: YAML) -> Any:
    if not path.is_file():
        raise UserError(f"{path}: file not found; run this in the project's root folder")
    try:
        return reader.load(path)
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error


def _describe(problem: Any) -> str:
    """Return one clause for a Pydantic error: dotted key, what is allowed, value."""
    key = ".".join(str(part) for part in problem["loc"]) or "the file"
    match problem["type"]:
        case "missing":
            return f"missing {key}"
        case "unexpected_keyword_argument":
            return f"unknown {key}"
        case "value_error":
            return f"{key}: {problem['ctx']['error']}"
        case "dataclass_type":
            return f"{key} must be a mapping, got {problem['input']!r}"
    allowed = problem["msg"].removeprefix("Input should be ")
    return f"{key} must be {allowed}, got {problem['input']!r}"
