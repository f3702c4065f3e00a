"""Films whose one HEVC stream holds two views as layers (MV-HEVC), made of two plain streams.

ITU-T H.265, Annexes F and G. Both views are encoded independently; then the second one's NAL units
become those of layer 1 (F.7.3). It is declared to depend on layer 0, as in films of cameras, but no slice
makes use of that: so each view decodes to exactly what its plain stream decodes to.

What is changed here is x265's with the options below: one slice a picture, one temporal layer, every slice's
reference pictures in its own header. The asserts hold it to that.
"""

import re
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.stream import Disposition

FPS = 25
_X265 = "log-level=none:pools=none:frame-threads=1:wpp=0:info=0:open-gop=0:scenecut=0:b-adapt=0"
_VPS, _SPS, _PPS = 32, 33, 34  # types of NAL units, table 7-1
_PICTURES, _KEYS, _IDRS = range(32), range(16, 24), (19, 20)
_ORDER_BITS = 8  # of slice_pic_order_cnt_lsb
# A slice header of layer 1 has 3 bits more, and those in an IDR picture. These fill up a byte, so that
# the slice's data stay aligned: num_extra_slice_header_bits.
_FILLING_BITS = 5


def encode(
    images: np.ndarray,  # uint8 [T, H, W, 3]
    *,
    reordered: int,  # B pictures between two others
    key_every: int,
) -> list[av.Packet]:
    """One view as a plain stream (Annex B), in order of decoding."""
    coder = av.CodecContext.create("libx265", "w")
    coder.height, coder.width, coder.pix_fmt = *images.shape[1:3], "yuv420p"
    coder.time_base, coder.framerate = Fraction(1, FPS), Fraction(FPS)
    structure = f"bframes={reordered}:keyint={key_every}:min-keyint={key_every}"
    coder.options = {"preset": "ultrafast", "crf": "12", "x265-params": f"{_X265}:{structure}"}
    packets = []
    for index, image in enumerate(images):
        frame = av.VideoFrame.from_ndarray(image).reformat(format="yuv420p")
        frame.pts = index
        packets += coder.encode(frame)
    return [*packets, *coder.encode(None)]


def two_layers(base: list[av.Packet], second: list[av.Packet]) -> list[av.Packet]:
    """Two plain streams as one: each packet holds both views of a moment."""
    sequence = next(_read_sequence(unit) for unit in units(base[0]) if kind_of(unit) == _SPS)
    packets = []
    for one, other in zip(base, second, strict=True):
        assert (one.pts, one.dts) == (other.pts, other.dts)
        layers = [_base_layer(unit, sequence) for unit in units(one)]
        layers += [_second_layer(unit) for unit in units(other) if kind_of(unit) != _VPS]
        packets.append(packet_of(layers, one))
    return packets


def write(path: Path, packets: list[av.Packet]) -> Path:
    """A film of the kind that its name's ending says; in MOV and MP4 as cameras write it, hvcC and lhvC."""
    whole = b"".join(map(bytes, packets))
    if path.suffix == ".hevc":
        path.write_bytes(whole)
        return path
    with av.open(BytesIO(whole), format="hevc") as stream, av.open(str(path), "w") as film:
        track = film.add_stream_from_template(stream.streams.video[0], opaque=True)  # with its parameter sets
        if any(map(layer_of, units(packets[0]))):
            track.disposition = Disposition.multilayer
        if path.suffix in (".mov", ".mp4"):
            track.codec_context.codec_tag = "hvc1"
        for packet in packets:
            copy = packet_of(units(packet), packet)
            copy.stream = track
            film.mux(copy)
    return path


def units(packet: av.Packet) -> list[bytes]:
    """The NAL units of a packet."""
    return re.split(b"\0?\0\0\1", bytes(packet))[1:]


def packet_of(units: list[bytes], like: av.Packet) -> av.Packet:
    """NAL units in a packet with another one's timestamps."""
    packet = av.Packet(b"".join(b"\0\0\0\1" + unit for unit in units))
    packet.pts, packet.dts, packet.time_base = like.pts, like.dts, like.time_base
    packet.is_keyframe = like.is_keyframe
    return packet


def kind_of(unit: bytes) -> int:
    """nal_unit_type"""
    return unit[0] >> 1


def layer_of(unit: bytes) -> int:
    """nuh_layer_id"""
    return (unit[0] & 1) << 5 | unit[1] >> 3


class _Bits:
    """A NAL unit's payload from its beginning on; what is taken are strings of 0 and 1."""

    def __init__(self, unit: bytes) -> None:
        payload = unit[2:].replace(b"\0\0\3", b"\0\0")  # without emulation prevention, 7.3.1.1
        bits = f"{int.from_bytes(payload):0{8 * len(payload)}b}"
        self.rest = bits[: bits.rindex("1")]  # without the stop bit

    def fixed(self, count: int) -> str:
        """u(count)"""
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def golomb(self) -> str:
        """ue(v)"""
        return self.fixed(2 * self.rest.index("1") + 1)


def _golomb(value: int) -> str:
    """9.2"""
    bits = f"{value + 1:b}"
    return bits.zfill(2 * len(bits) - 1)


def _value(golomb: str) -> int:
    return int(golomb, 2) - 1


def _unit(kind: int, layer: int, bits: str) -> bytes:
    """7.3.1"""
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8)
    header = (kind << 9 | layer << 3 | 1).to_bytes(2)
    return header + re.sub(b"\0\0(?=[\0-\3])", lambda _: b"\0\0\3", payload)


class _Sequence(NamedTuple):
    """A sequence parameter set without what only its layer's own begins with, 7.3.2.2."""

    vps: str
    format: str  # as rep_format() has it, F.7.3.2.1.2
    order_bits: str
    buffering: list[str]  # pictures kept, pictures reordered, latency
    rest: str


def _read_sequence(unit: bytes) -> _Sequence:
    bits = _Bits(unit)
    vps = bits.fixed(4)
    assert bits.fixed(3) == "000", "one temporal layer"
    bits.fixed(1 + 96)  # nesting, profile and level
    bits.golomb()  # its id
    chroma, width, height = (_value(bits.golomb()) for _ in range(3))
    assert chroma < 3, "no separate colour planes"
    window = bits.fixed(1)
    if window == "1":
        window += "".join(bits.golomb() for _ in range(4))
    luma, colour = (_value(bits.golomb()) for _ in range(2))
    order_bits = bits.golomb()
    assert _value(order_bits) == _ORDER_BITS - 4
    bits.fixed(1)  # the one temporal layer's follow
    buffering = [bits.golomb() for _ in range(3)]
    shape = f"{width:016b}{height:016b}1{chroma:02b}{luma:04b}{colour:04b}{window}"
    return _Sequence(vps, shape, order_bits, buffering, bits.rest)


def _base_layer(unit: bytes, sequence: _Sequence) -> bytes:
    """A video parameter set with a second layer, 7.3.2.1, and vps_extension(), F.7.3.2.1.1; others stay."""
    if kind_of(unit) != _VPS:
        return unit
    bits = _Bits(unit)
    new = bits.fixed(6)
    assert bits.fixed(6) == "000000", "one layer"
    new += "000001" + bits.fixed(3 + 1 + 16)
    profile = bits.fixed(96)
    new += profile + bits.fixed(1) + bits.golomb() + bits.golomb() + bits.golomb()
    assert bits.rest == "000000" + _golomb(0) + "00", "one set of layers, no clock, no extension"
    new += "000001" + _golomb(1) + "11" + "01"  # a second set, of both layers; no clock, an extension
    new += "1" * (-len(new) % 8)
    new += profile[-8:]  # profile_tier_level() with general_level_idc only
    new += "0" + "01".ljust(16, "0")  # splitting_flag, scalability_mask_flag: views
    new += "000" + "0" + "1"  # dimension_id_len_minus1, vps_nuh_layer_id_present_flag, dimension_id
    new += "0001" + "0" + "1"  # view_id_len, view_id_val of both
    new += "1"  # direct_dependency_flag
    new += "000"  # nothing of temporal layers, default_ref_layers_active_flag
    new += _golomb(1) + _golomb(0) + "00"  # two profiles, no further output layer sets, all layers are shown
    new += "1" + "1"  # profile_tier_level_idx of both layers
    new += _golomb(0) + sequence.format
    new += "1" + "1"  # max_one_active_ref_layer_flag, vps_poc_lsb_aligned_flag
    kept, reordered, latency = sequence.buffering
    new += "0" + kept + kept + reordered + latency  # dpb_size(), F.7.3.2.1.3
    new += _golomb(0) + "1" + "00"  # direct_dependency_all_layers_type, in 2 bits: of samples
    new += _golomb(0) + "0" + "0"  # no other extension, vps_vui_present_flag, vps_extension2_flag
    return _unit(_VPS, 0, new)


def _second_layer(unit: bytes) -> bytes:
    kind, bits = kind_of(unit), _Bits(unit)
    if kind == _SPS:  # takes format and buffering from the VPS, F.7.3.2.2.1
        old = _read_sequence(unit)
        return _unit(_SPS, 1, old.vps + "111" + _golomb(1) + "0" + old.order_bits + old.rest)
    if kind == _PPS:  # 7.3.2.3.1
        assert bits.golomb() + bits.golomb() == _golomb(0) * 2
        flags = bits.fixed(2)
        assert bits.fixed(3) == "000"
        return _unit(_PPS, 1, _golomb(1) * 2 + flags + f"{_FILLING_BITS:03b}" + bits.rest)
    assert kind in _PICTURES
    return _unit(kind, 1, _slice_header(bits, kind) + bits.rest)


def _slice_header(bits: _Bits, kind: int) -> str:
    """Return the slice header of layer 1, F.7.3.6.1."""
    new = bits.fixed(1)
    assert new == "1", "one slice a picture"
    new += bits.fixed(1 if kind in _KEYS else 0)
    assert bits.golomb() == _golomb(0)
    new += _golomb(1) + "0" * _FILLING_BITS + bits.golomb()
    if kind in _IDRS:
        new += "0" * _ORDER_BITS
    else:
        new += bits.fixed(_ORDER_BITS)
        own = bits.fixed(1)
        assert own == "0", "the slice has its own reference picture set, 7.3.7"
        before, after = bits.golomb(), bits.golomb()
        new += own + before + after
        new += "".join(bits.golomb() + bits.fixed(1) for _ in range(_value(before) + _value(after)))
        new += bits.fixed(1)  # slice_temporal_mvp_enabled_flag
    return new + "0"  # inter_layer_pred_enabled_flag
