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
    fps: float
    frames: int
    shots: int
    clips: int
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

    @property
    def pixels(self) -> int:
        """Of all frames of one eye."""
        return (self.stop - self.start) * self.height * self.width


@dataclass(frozen=True)
class Shifted:
    """data/shift/shift.parquet: what makes a clip's disparities start at nearly zero."""

    id: str
    key: str
    shift_px: int  # whole px the right view moves to the right
    near_px: float  # largest disparity left after the shift, px
    support: float  # share of textured coarse pixels that match both ways, [0, 1]


@dataclass(frozen=True)
class Matched:
    """data/match/match.parquet."""

    id: str
    key: str
    offset_px: float  # disparity = stored value / 64 + offset_px
    matched_share: float  # pixels that passed the left-right check, [0, 1]


@dataclass(frozen=True)
class Splatted:
    """data/splat/splat.parquet."""

    id: str
    key: str
    occlusion_share: float  # [0, 1]


@dataclass(frozen=True)
class Scored:
    """data/quality/quality.parquet: every score of every clip."""

    id: str
    key: str
    psnr_db: float  # warped left against right, visible pixels only
    occlusion_share: float  # [0, 1]
    matched_share: float  # [0, 1]
    disparity_min_percent: float  # 1st percentile, % of the width
    disparity_max_percent: float  # 99th percentile, % of the width
    width: int  # px left after the shift


@dataclass(frozen=True)
class Bad:
    """data/<stage>/bad.parquet: clips a stage could not work with; films/left_out.parquet: films."""

    id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Kept:
    """data/filter/kept.parquet."""

    id: str
    film: str
    split: str  # train or test


@dataclass(frozen=True)
class Rejected:
    """data/filter/rejected.parquet."""

    id: str
    film: str
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Rendered:
    """data/world/world.parquet: a shot of the synthetic world."""

    id: str
    key: str
    frames: int
    offset_px: float  # disparity of the left view = stored value / 64 + offset_px
    right_offset_px: float  # the same of the right view


@dataclass(frozen=True)
class Held:
    """data/evaluate/regions/manifest.parquet: a held-out clip that models are judged on."""

    id: str
    key: str
    film: str  # Film.id
    reference: str  # where its regions come from: truth or match
    unknown_share: float  # pixels whose region can not be told, [0, 1]
    disoccluded_share: float
    border_share: float


@dataclass(frozen=True)
class Evaluated:
    """data/evaluate/scores/scores.parquet: how one method did on one clip; NaN where nothing was to score."""

    id: str  # hash of clip and method
    key: str
    clip: str
    film: str  # Film.id
    method: str
    kind: str  # floor, inpainter, model
    psnr_db: float  # of all pixels
    psnr_visible_db: float
    psnr_disoccluded_db: float
    psnr_border_db: float
    ssim: float  # mean over all pixels, [-1, 1]
    ssim_visible: float
    ssim_disoccluded: float
    ssim_border: float
    rank_correlation: float  # of the method's own depth with the matched disparity; NaN for the others
    disparity_error_percent: float  # mean absolute, % of the width, after one scale and one shift
