"""HDR: known values of BT.2100, BT.2390 and BT.2408, and films through the door."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from secondeye.conversion.convert import convert
from secondeye.conversion.settings import ConversionSettings
from secondeye.video.probe import BT709, UnreadableFilm, probe
from secondeye.video.read import decode_film
from secondeye.video.tone_mapping import (
    HLG,
    PQ,
    SOURCE_PEAK,
    TARGET_PEAK,
    compress_luminance,
    dither,
    nits_to_pq,
    pq_to_nits,
    tone_map,
)

SETTINGS = ConversionSettings(3.0, 0.5, "motion", "fill", 10, "ultrafast", None)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_pq_has_the_values_of_its_standard() -> None:
    """BT.2408, table 1, and BT.2390: 100, 203, 1000 and 10000 cd/m2."""
    nits, signal = floats(100, 203, 1000, 10000), floats(0.508, 0.581, 0.752, 1.0)
    assert np.allclose(nits_to_pq(nits), signal, atol=6e-4)
    assert np.allclose(pq_to_nits(nits_to_pq(nits)), nits, rtol=1e-3)


def test_luminance_is_kept_below_the_knee_and_ends_at_the_white_of_the_target() -> None:
    nits = np.geomspace(0.01, SOURCE_PEAK, 200).astype(np.float32)
    mapped = compress_luminance(nits)
    top = float(nits_to_pq(floats(SOURCE_PEAK))[0])
    knee = pq_to_nits(floats((1.5 * float(nits_to_pq(floats(TARGET_PEAK))[0]) / top - 0.5) * top))[0]
    assert np.allclose(mapped[nits < knee], nits[nits < knee], rtol=2e-3) and knee > 40
    assert np.all(np.diff(mapped) > 0) and np.all(mapped <= nits * 1.002)
    assert abs(float(mapped[-1]) - TARGET_PEAK) < 0.5


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_gray_stays_gray_black_black_and_the_peak_is_white(transfer: int) -> None:
    peak = 65535 * (float(nits_to_pq(floats(SOURCE_PEAK))[0]) if transfer == PQ else 1.0)
    levels = np.linspace(0, peak, 64).round().astype(np.uint16)
    mapped = tone_map(np.repeat(levels[None, :, None], 3, axis=2), transfer)
    assert np.ptp(mapped, axis=2).max() < 1 / 255
    assert mapped[0, 0].max() == 0 and mapped[0, -1].min() > 254.5 / 255
    assert np.all(np.diff(mapped[0, :, 1]) >= 0)


def test_a_sample_of_each_curve() -> None:
    """Light of 26 cd/m2, below the knee: (26 / 203) ** (1 / 2.4). HLG's 75 % is the reference white of PQ."""
    level = np.uint16(round(65535 * float(nits_to_pq(floats(26))[0])))
    assert abs(tone_map(np.full((1, 1, 3), level), PQ)[0, 0, 1] - (26 / 203) ** (1 / 2.4)) < 1 / 255
    white = np.uint16(round(65535 * float(nits_to_pq(floats(203))[0])))
    pq, hlg = tone_map(np.full((1, 1, 3), white), PQ), tone_map(np.full((1, 1, 3), 49151, np.uint16), HLG)
    assert np.abs(pq - hlg).max() < 1.5 / 255


def test_dithered_gradients_keep_their_mean() -> None:
    """A level between two of 8 bits becomes a mixture of both; truncated, it would lose half a level."""
    for value in (0, 100, 12345, 40000, 65535):
        shown = dither(np.full((8, 8, 3), value, np.uint16))
        assert abs(shown.mean() - value / 257) <= 1 / 16
        assert set(np.unique(shown)) <= {value // 257, value // 257 + 1}


def write_hdr(path: Path, level: int, transfer: int) -> Path:
    """Write a gray film of 10 bits, BT.2020, with a luma level of 1023."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p10le"
        stream.codec_context.colorspace, stream.codec_context.color_primaries = 9, 9
        stream.codec_context.color_trc, stream.codec_context.color_range = transfer, 1
        planes = [np.full((48, 64), level, np.uint16), *[np.full((24, 32), 512, np.uint16)] * 2]
        packed = np.concatenate([plane.ravel() for plane in planes]).reshape(72, 64)
        for number in range(9):
            frame = VideoFrame.from_ndarray(packed, format="yuv420p10le")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_an_hdr_film_is_converted_to_sdr(tmp_path: Path) -> None:
    pq = float(nits_to_pq(floats(26))[0])
    film = write_hdr(tmp_path / "film.mkv", round(64 + 876 * pq), PQ)
    info = probe(film)
    assert (info.hdr, info.colour, info.bit_depth) == ("PQ", BT709, 10)
    log: list[str] = []
    made = convert(film, None, SETTINGS, log=log.append)
    assert any("HDR (PQ), is tone-mapped to SDR" in line for line in log)
    assert probe(made.output).hdr == "" and probe(made.output).colour == BT709
    shown = next(decode_film(made.output)).rgb
    assert abs(shown.mean() - 255 * (26 / 203) ** (1 / 2.4)) < 1.5


def test_real_dolby_vision(footage: Path) -> None:
    """Profile 8.1 is HDR10 with additions; profile 5 looks green and purple to all but its decoders."""
    assert probe(footage / "odd_hdr" / "dolbyvision_p81.mp4").hdr == "PQ"
    with pytest.raises(UnreadableFilm, match="Dolby Vision with IPT colours"):
        probe(footage / "odd_hdr" / "dolbyvision_p5_untagged.mp4")
