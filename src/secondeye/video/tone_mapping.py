"""Tone-map high dynamic range (PQ and HLG, BT.2100) to BT.709, and dither to 8 bits.

Luminance is compressed by the EETF of ITU-R BT.2390, section 5.4.1: unchanged up to a knee, then a Hermite
spline that maps the source's peak to that of the target. Signals are taken to be graded for 1000 cd/m2, and
the target's white is the reference white of BT.2408, 203 cd/m2 (both ours; metadata of the film are not
used, so that every frame is mapped alike).
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

PQ, HLG = 16, 18  # FFmpeg's AVCOL_TRC_SMPTE2084 and AVCOL_TRC_ARIB_STD_B67
SOURCE_PEAK, TARGET_PEAK = 1000.0, 203.0  # cd/m2
_STEPS = 65535  # of a 16-bit signal
_HLG_GAMMA = 1.2  # of the system, for a display of 1000 cd/m2 (BT.2100)
_HLG_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020
_SDR_GAMMA = 2.4  # BT.1886
# BT.2087, linear RGB of BT.2020 to that of BT.709
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128  # of PQ (SMPTE ST 2084)
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
_PQ_PEAK = 10000.0  # cd/m2
_BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]], np.float32)

Signal = NDArray[np.float32]


def pq_to_nits(signal: Signal) -> Signal:  # [0, 1] to cd/m2
    """Decode PQ."""
    root = np.power(signal, 1 / _M2)
    return (_PQ_PEAK * np.power(np.maximum(root - _C1, 0) / (_C2 - _C3 * root), 1 / _M1)).astype(np.float32)


def nits_to_pq(nits: Signal) -> Signal:  # cd/m2 to [0, 1]
    """Encode PQ."""
    power = np.power(np.maximum(nits, 0) / _PQ_PEAK, _M1)
    return np.power((_C1 + _C2 * power) / (1 + _C3 * power), _M2)


def hlg_to_linear(signal: Signal) -> Signal:  # [0, 1] to scene light [0, 1]
    """Decode HLG to the light of the scene."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def compress_luminance(
    nits: Signal, source_peak: float = SOURCE_PEAK, target_peak: float = TARGET_PEAK
) -> Signal:
    """Map luminance of a source to that of a target by BT.2390's EETF, cd/m2; both have black at 0."""
    top, white = nits_to_pq(np.array([source_peak, target_peak], np.float32)).tolist()
    highest = white / top
    knee = 1.5 * highest - 0.5
    signal = np.clip(nits_to_pq(nits) / top, 0, 1)
    t = np.maximum(signal - knee, 0) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * highest
    )
    return pq_to_nits((np.where(signal < knee, signal, spline) * top).astype(np.float32))


@lru_cache(maxsize=1)
def _pq_table() -> Signal:
    return pq_to_nits(np.linspace(0, 1, _STEPS + 1, dtype=np.float32))


@lru_cache(maxsize=1)
def _hlg_table() -> Signal:
    return hlg_to_linear(np.linspace(0, 1, _STEPS + 1, dtype=np.float32)).astype(np.float32)


@lru_cache(maxsize=1)
def _ratio_table() -> Signal:
    """Return the factor of linear light by the largest channel, over equal steps of its square root."""
    nits = (np.square(np.linspace(0, 1, _STEPS + 1)) * SOURCE_PEAK).astype(np.float32)
    return (compress_luminance(nits) / np.maximum(nits, 1e-6)).astype(np.float32)


@lru_cache(maxsize=1)
def _sdr_table() -> Signal:
    """Return the SDR signal [0, 1] by linear light, over equal steps of its square root."""
    return np.linspace(0, 1, _STEPS + 1, dtype=np.float32) ** (2 / _SDR_GAMMA)


def tone_map(
    rgb: NDArray[np.uint16],  # [H, W, 3], BT.2020, full range
    transfer: int,  # PQ or HLG
) -> Signal:  # [H, W, 3] in [0, 1], BT.709 for a display of BT.1886
    """Convert an HDR picture to BT.709; hues stay, and what lies outside its gamut is clipped."""
    if transfer == PQ:
        nits = _pq_table()[rgb]
    else:
        scene = _hlg_table()[rgb]
        luma = scene @ _HLG_LUMA
        nits = scene * (SOURCE_PEAK * np.power(luma, _HLG_GAMMA - 1, dtype=np.float32))[..., None]
    peak = nits.max(axis=2)
    nits *= np.minimum(SOURCE_PEAK / np.maximum(peak, SOURCE_PEAK), 1)[..., None]  # keeps hues above the peak
    peak = np.minimum(peak, SOURCE_PEAK)
    ratio = _ratio_table()[(np.sqrt(peak / SOURCE_PEAK) * _STEPS).astype(np.uint16)]
    linear = (nits * ratio[..., None]) @ (_TO_BT709.T / TARGET_PEAK)
    root = np.sqrt(np.clip(linear, 0, 1), dtype=np.float32)
    return _sdr_table()[(root * _STEPS).astype(np.uint16)]


def dither(
    signal: NDArray[np.uint16] | Signal,  # [H, W, 3]: 16 bits, or [0, 1]
) -> NDArray[np.uint8]:  # [H, W, 3]
    """Round to 8 bits with an ordered dither, so that smooth gradients show no bands."""
    height, width = signal.shape[:2]
    scale = 255 / _STEPS if signal.dtype == np.uint16 else 255
    rows, columns = -(-height // 4), -(-width // 4)
    threshold = np.tile((_BAYER + 0.5) / 16, (rows, columns))[:height, :width, None]
    return (signal * np.float32(scale) + threshold).astype(np.uint8)  # at most 255 + 31/32
