"""Row types of every table of the dataset. Tables are joined by `id`; reader.py has their paths.

`key` is a hash of everything that a result depends on: equal keys mean equal bytes.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Film:
    """data/split/films.parquet: a film of data/raw."""

    id: str  # hash of the file's bytes
    name: str
    packing: str
    split: str  # train, test, or "" if sources.csv does not say
    licence: str
    height: int  # px of one view, upright, borders included
    width: int  # px
    pixel_aspect: float  # width over height of a pixel of one view
    fps: float
    frames: int
    shots: int
    clips: int
    crop_top: int  # px of black border to crop from each view
    crop_bottom: int
    crop_left: int
    crop_right: int
    bit_rate: float  # bit/s of all its files, sound included
    remark: str  # for people: a guessed packing, a truncated file

    @property
    def picture_pixels(self) -> int:
        """Number of stored pixels of one view without its black borders."""
        rows = self.height - self.crop_top - self.crop_bottom
        return rows * (self.width - self.crop_left - self.crop_right)


@dataclass(frozen=True)
class Clip:
    """data/split/clips.parquet: a part of one shot at working size."""

    id: str
    key: str
    film: str  # Film.id
    shot: int  # index of the shot in the film
    start: int  # first frame in the film
    stop: int  # one past the last frame
    start_share: float  # start as a share of the film's length, [0, 1)
    stride: int  # largest frame stride at which a training window fits
    height: int  # px
    width: int  # px
    perceptual_hash: str  # of sampled frames of the left view, then the right, 16 hex digits each

    @property
    def pixels(self) -> int:
        """Number of pixels of all frames of one view."""
        return (self.stop - self.start) * self.height * self.width


@dataclass(frozen=True)
class SkippedClip:
    """data/split/skipped.parquet: a piece of a film that did not become a clip."""

    id: str
    film: str  # Film.id
    start: int  # first frame in the film
    stop: int  # one past the last frame
    reason: str
    detail: str


@dataclass(frozen=True)
class Correction:
    """data/shift/shift.parquet: corrections of a clip, in the order in which corrections.py applies them."""

    id: str
    key: str
    # Of the views as stored, before they are exchanged: imaging.rectification; focal length 0 for none.
    rectify_focal_widths: float
    rectify_left_yaw_deg: float
    rectify_left_roll_deg: float
    rectify_right_pitch_deg: float
    rectify_right_yaw_deg: float
    rectify_right_roll_deg: float
    rectify_right_zoom: float
    rectify_row_px: float  # by how much the rows of a corner move at most
    swapped: bool  # left and right are exchanged
    red_gain: float  # the right view's red becomes gain * red + offset, clamped to [0, 1]
    red_offset: float
    green_gain: float
    green_offset: float
    blue_gain: float
    blue_offset: float
    vertical_px: int  # how far the right view moves down
    shift_px: int  # how far the right view moves to the right
    near_px: float  # largest disparity after the shift
    match_ratio: float  # share of corners matched between the views, [0, 1]
    view_order_evidence: float  # of its film, from occlusions, [-1, 1]; negative if the views seem swapped
    order_uncertain: (
        bool  # views may be swapped, but the evidence does not suffice; no clip of the test split
    )
    order_cues: str  # all evidence, for people


@dataclass(frozen=True)
class ClipDisparity:
    """data/match/match.parquet: disparity of the left view."""

    id: str
    key: str
    offset_px: float  # disparity = stored value / 64 + offset_px
    matched_share: float  # of pixels that passed the left-right check, [0, 1]


@dataclass(frozen=True)
class ClipOcclusion:
    """data/splat/splat.parquet: the left view warped to the right."""

    id: str
    key: str
    occlusion_share: float  # [0, 1]


@dataclass(frozen=True)
class ClipQuality:
    """data/quality/quality.parquet: every score of a clip."""

    id: str
    key: str
    psnr_db: float  # warped left view against right view, visible pixels only
    agreement_psnr_db: float  # the same over the best `matched_share` of these pixels
    ssim: float  # of the same, [-1, 1]
    occlusion_share: float  # [0, 1]
    matched_share: float  # of pixels that passed the left-right check, [0, 1]
    disparity_min_percent: float  # 1st percentile, % of the width
    disparity_max_percent: float  # 99th percentile, % of the width
    motion_percent: float  # median optical flow between frames of the left view, % of the width
    sharpness: float  # mean gradient of the left view, levels of 255
    sharpness_ratio: float  # right view to left view
    colour_difference: float  # between the means of warped left and right, levels of 255, largest channel
    height: int  # px after the corrections
    width: int  # px after the corrections


WORKER_CRASHED = "worker crashed"  # reason of a FailedItem whose worker crashed at every attempt


@dataclass(frozen=True)
class FailedItem:
    """data/<stage>/failed.parquet, split/films/skipped_films.parquet: what a stage could not process."""

    id: str  # of the clip, or the film's name
    reason: str
    detail: str


@dataclass(frozen=True)
class AcceptedClip:
    """data/filter/accepted.parquet: a clip of the dataset."""

    id: str
    film: str
    split: str  # train or test


@dataclass(frozen=True)
class RejectedClip:
    """data/filter/rejected.parquet: a clip or piece that some stage rejected."""

    id: str
    film: str
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True)
class SyntheticShot:
    """data/synthetic/synthetic.parquet: a synthetic shot."""

    id: str
    key: str
    frames: int
    offset_px: float  # disparity of the left view = stored value / 64 + offset_px
    right_offset_px: float  # the same for the right view


@dataclass(frozen=True)
class EvalClip:
    """data/evaluate/regions/manifest.parquet: a held-out clip that models are evaluated on."""

    id: str
    key: str
    film: str  # Film.id
    reference: str  # where its regions come from: truth or match
    digest: str  # hash of the values of the region map
    unknown_share: float  # of pixels without a known region, [0, 1]
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
    low: float  # of the confidence interval: bootstrap over films, then clips
    high: float
    films: int  # number of films with this score


@dataclass(frozen=True)
class Score:
    """data/evaluate/scores/scores.parquet: every score of one method on one clip; NaN if undefined.

    docs/metrics.md defines every score; its heading is the column's name.
    """

    id: str  # hash of clip and method
    key: str
    clip: str
    film: str  # Film.id
    method: str
    kind: str  # baseline, inpainter, ceiling, model, external, aligned, flat
    # On crops around disocclusions; haarpsi is the primary score.
    haarpsi: float  # [0, 1]
    vif: float
    lpips: float  # NaN without weights
    dists: float  # NaN without weights
    # Over all pixels, and over each region of the true right view.
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
    gradient_ratio: float  # to the true right view; 1 is equally sharp
    temporal_error: float  # levels of 255
    seam_ratio: float  # to the true right view; 1 is no visible seam
    # Of the worst block of disocclusions and border.
    worst_block: float  # error relative to the contrast around it
    chroma_excess: float  # levels of 255
    # Over time.
    warping_ratio: float  # warping error relative to the left view's; 1 is equally stable
    flicker: float  # levels of 255
    worst_jump: float  # levels of 255
    # As a stereo pair.
    siou: float  # [0, 1]
    epe_px: float
    d1_percent: float
    tepe_px: float
    disparity_correlation: float  # [-1, 1]
    vertical_px: float
    sharpness_ratio: float  # right view to left view
    # Comfort.
    far_percent: float  # 1st percentile of disparity, % of the width
    near_percent: float  # 99th percentile
    window_violation_percent: float  # of the pixels at the left and right borders
    # Of the method's own depth; NaN if it has none.
    rank_correlation: float  # with the matched disparity
    disparity_error_percent: float  # mean absolute error after fitting scale and shift, % of the width
    edge_f_score: float  # [0, 1]
    hole_area_ratio: float  # to the true hole area
    # Of films converted elsewhere, if aligned: their disparity is about ratio * true + shift.
    strength_ratio: float
    convergence_shift_percent: float  # of the width
