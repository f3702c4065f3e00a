"""The rows of every table of the dataset. `id` joins them; files follow from stage, id and kind.

`key` names everything a clip's result was made from; two results with the same key are the same bytes.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Film:
    """data/split/films.parquet: what was found in data/raw."""

    id: str  # hash of the file's bytes
    name: str
    packing: str
    split: str  # train, test, or "" where sources.csv leaves it open
    licence: str
    height: int  # px of an eye, upright, borders included
    width: int  # px
    pixel_aspect: float  # width over height of an eye's pixel
    fps: float
    frames: int
    shots: int
    clips: int
    crop_top: int  # px of an eye, black borders that are cut off, both eyes alike
    crop_bottom: int
    crop_left: int
    crop_right: int
    remark: str  # what a reader should know: guessed packing, a file that breaks off


@dataclass(frozen=True)
class Clip:
    """data/split/clips.parquet: a piece of one shot at working size."""

    id: str
    key: str
    film: str  # Film.id
    shot: int  # which shot of the film, from 0
    start: int  # first frame in the film
    stop: int  # one past the last frame
    start_share: float  # start as a share of the film's length, [0, 1)
    stride: int  # the largest stride at which one training window still fits
    height: int  # px
    width: int  # px
    perceptual_hash: str  # perceptual hashes of frames of the left eye, then the right, 16 hex digits each

    @property
    def pixels(self) -> int:
        """Of all frames of one eye."""
        return (self.stop - self.start) * self.height * self.width


@dataclass(frozen=True)
class SkippedClip:
    """data/split/skipped.parquet: pieces of films that did not become clips."""

    id: str
    film: str  # Film.id
    start: int  # first frame in the film
    stop: int  # one past the last frame
    reason: str
    detail: str


@dataclass(frozen=True)
class Correction:
    """data/shift/shift.parquet: the corrections of a clip; `views` applies them, in this order."""

    id: str
    key: str
    swapped: bool  # the eyes change places
    red_gain: float  # the right view's red becomes gain * red + offset, cut to [0, 1]
    red_offset: float
    green_gain: float
    green_offset: float
    blue_gain: float
    blue_offset: float
    vertical_px: int  # whole px the right view moves down
    shift_px: int  # whole px the right view moves to the right
    near_px: float  # largest disparity left after the shift, px
    support: float  # share of corners that both eyes have, [0, 1]
    order_evidence: float  # of its film: what is hidden lies as it does for these eyes (1) or swapped (-1)


@dataclass(frozen=True)
class ClipDisparity:
    """data/match/match.parquet."""

    id: str
    key: str
    offset_px: float  # disparity = stored value / 64 + offset_px
    matched_share: float  # pixels that passed the left-right check, [0, 1]


@dataclass(frozen=True)
class ClipOcclusion:
    """data/splat/splat.parquet."""

    id: str
    key: str
    occlusion_share: float  # [0, 1]


@dataclass(frozen=True)
class ClipQuality:
    """data/quality/quality.parquet: every score of every clip."""

    id: str
    key: str
    psnr_db: float  # warped left against right, visible pixels only
    ssim: float  # the same two, [-1, 1]
    occlusion_share: float  # [0, 1]
    matched_share: float  # pixels on which matching from both eyes agrees, [0, 1]
    disparity_min_percent: float  # 1st percentile, % of the width
    disparity_max_percent: float  # 99th percentile, % of the width
    motion_percent: float  # median length of the left eye's flow between frames, % of the width
    sharpness: float  # mean gradient of the left eye, levels of 255
    sharpness_ratio: float  # of the right eye to the left eye
    colour_difference: float  # levels of 255 between the means of warped left and right, largest channel
    height: int  # px left after the corrections
    width: int  # px left after the corrections


WORKER_CRASHED = "worker crashed"  # the reason of a FailedItem that ended its worker at each attempt


@dataclass(frozen=True)
class FailedItem:
    """data/<stage>/failed.parquet: clips a stage could not work with; films/skipped_films.parquet: films."""

    id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class AcceptedClip:
    """data/filter/accepted.parquet."""

    id: str
    film: str
    split: str  # train or test


@dataclass(frozen=True)
class RejectedClip:
    """data/filter/rejected.parquet."""

    id: str
    film: str
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True)
class SyntheticShot:
    """data/world/world.parquet: a shot of the synthetic world."""

    id: str
    key: str
    frames: int
    offset_px: float  # disparity of the left view = stored value / 64 + offset_px
    right_offset_px: float  # the same of the right view


@dataclass(frozen=True)
class EvalClip:
    """data/evaluate/regions/manifest.parquet: a held-out clip that models are judged on."""

    id: str
    key: str
    film: str  # Film.id
    reference: str  # where its regions come from: truth or match
    digest: str  # of the map of regions, by its values
    unknown_share: float  # pixels whose region can not be told, [0, 1]
    visible_share: float
    disoccluded_share: float
    border_share: float


@dataclass(frozen=True)
class AggregateScore:
    """data/evaluate/scores/totals.parquet: one score of one method, over films; each film counts once."""

    id: str  # method and score
    method: str
    kind: str  # as in Score
    score: str  # a column of Score
    mean: float
    low: float  # of the interval: a bootstrap over films, then clips
    high: float
    films: int  # that have this score


@dataclass(frozen=True)
class Score:
    """data/evaluate/scores/scores.parquet: how one method did on one clip; NaN where nothing was to score.

    docs/metrics.md defines every score; its heading is the column's name.
    """

    id: str  # hash of clip and method
    key: str
    clip: str
    film: str  # Film.id
    method: str
    kind: str  # baseline, inpainter, ceiling, model, external
    # On crops around disocclusions: the first is what decides.
    haarpsi: float  # [0, 1]
    vif: float
    lpips: float  # NaN without weights
    dists: float  # NaN without weights
    # Of all pixels, and of each region of the true right eye.
    psnr_db: float
    psnr_visible_db: float
    psnr_disoccluded_db: float
    psnr_border_db: float
    ssim: float  # [-1, 1]
    ssim_visible: float
    ssim_disoccluded: float
    ssim_border: float
    ms_ssim: float  # [0, 1]
    ms_ssim_visible: float
    ms_ssim_disoccluded: float
    ms_ssim_border: float
    # Inside disocclusions, and around them.
    gradient_ratio: float  # to the truth's; 1 is as sharp
    temporal_error: float  # levels of 255
    seam_ratio: float  # to the truth's; 1 is no seam
    # Over time.
    warping_ratio: float  # to the left film's own; 1 is as steady
    flicker: float  # levels of 255
    worst_jump: float  # levels of 255
    # As a pair.
    siou: float  # [0, 1]
    epe_px: float
    d1_percent: float
    tepe_px: float
    disparity_correlation: float  # [-1, 1]
    vertical_px: float
    sharpness_ratio: float  # to the left eye's
    # Comfort.
    far_percent: float  # 1st percentile of disparity, % of the width
    near_percent: float  # 99th percentile
    window_violation_percent: float  # of the pixels at the left and right border
    # The method's own depth; NaN where it has none.
    rank_correlation: float  # with the matched disparity
    disparity_error_percent: float  # mean absolute, % of the width, after one scale and one shift
    edge_f_score: float  # [0, 1]
    hole_area_ratio: float  # to the truth's
