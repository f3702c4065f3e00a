"""Load the weights of Video Depth Anything: a released .pth, or the same tensors as safetensors.

A .pth is read with `weights_only`: it cannot run code.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import torch
from torch import Tensor

from secondeye.depth.video_depth_files import find_weights
from secondeye.depth.video_depth_network import CONFIGURATIONS, Configuration, VideoDepthNetwork
from secondeye.system.errors import UserError

_CLASS_TOKEN = "pretrained.cls_token"  # its width tells the networks apart
_ENCODER_NAMES = {  # name in transformers: released name
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.": "",
    "encoder.layer.": "blocks.",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "layernorm.": "norm.",
}
_QKV = re.compile(r"attention\.([qkv])_proj")  # released as one layer


class VideoDepthWeights(NamedTuple):
    """A loaded network."""

    network: VideoDepthNetwork  # float32 on the CPU, in eval mode
    metric: bool  # estimates metres, not inverse depth


def load_weights(source: str) -> VideoDepthWeights:
    """Load the network of a file, of a folder with one file, or of a key of RELEASED.

    Files with `metric` in their name, or in that of the folder or key, estimate metres: the weights
    themselves do not tell. Raises UserError if there is no such file or it does not fit a released network.
    """
    path = find_weights(source)
    weights = _read(path)
    network = _build(_sizes(weights, path))
    network.load_state_dict(_rename(weights, network, path), assign=True)
    metric = any("metric" in Path(name).name.lower() for name in (source, path))
    return VideoDepthWeights(network.eval().requires_grad_(False), metric)


def read_sizes(source: str) -> tuple[Configuration, int]:
    """Return the sizes of a network, and the bytes of its weights, which are not loaded."""
    path = find_weights(source)
    return _sizes(_read(path, mapped=True), path), path.stat().st_size


def _read(
    path: Path,
    *,
    mapped: bool = False,  # leave the tensors of a .pth on the disk
) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            mapped = mapped and zipfile.is_zipfile(path)  # files of old versions of torch are none
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (
        SafetensorError,
        UnpicklingError,
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        LookupError,
    ) as error:
        raise UserError(f"{path}: not a readable file of weights, or damaged; get it again") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: not a plain state dict; use a released file of Video Depth Anything")
    return content


def _build(sizes: Configuration) -> VideoDepthNetwork:
    """Return a network without memory for its weights."""
    with torch.device("meta"):
        return VideoDepthNetwork(sizes)


def _sizes(weights: Mapping[str, Tensor], path: Path) -> Configuration:
    """Return the sizes of the network that the class token belongs to."""
    token = weights.get(_CLASS_TOKEN)
    width = None if token is None else token.shape[-1]
    for sizes in CONFIGURATIONS.values():
        if sizes.width == width:
            return sizes
    found = "is missing" if token is None else f"is {list(token.shape)}"
    raise UserError(f"{path}: not Video Depth Anything: {_CLASS_TOKEN} {found}; use a released file")


def _rename(weights: Mapping[str, Tensor], network: VideoDepthNetwork, path: Path) -> dict[str, Tensor]:
    """Return the weights by the network's names; UserError unless they are exactly those it needs."""
    renamed, unused = {}, set(weights)
    for name, wanted in network.state_dict().items():
        released, part = released_name(name)
        if released not in weights:
            raise _misfit(path, f"{released} is missing")
        given, shape = weights[released], list(wanted.shape)
        if part is not None:
            shape[0] *= 3
        if list(given.shape) != shape:
            raise _misfit(path, f"{released} is {list(given.shape)}, expected {shape}")
        renamed[name] = (given if part is None else given.chunk(3)[part]).float()
        unused.discard(released)
    if unused:
        raise _misfit(path, f"{min(unused)} is not part of the network")
    return renamed


def released_name(name: str) -> tuple[str, int | None]:
    """Return the released name of a tensor, and which third of it, or None for all of it."""
    if not name.startswith("pretrained."):
        return name, None
    for ours, released in _ENCODER_NAMES.items():
        name = name.replace(ours, released)
    qkv = _QKV.search(name)
    return (_QKV.sub("attn.qkv", name), "qkv".index(qkv[1])) if qkv else (name, None)


def _misfit(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: does not fit Video Depth Anything: {reason}; use a released file")
