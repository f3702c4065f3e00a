"""The stand-in weights of Video Depth Anything that the recorded arrays belong to: the same bits everywhere.

The noise is a sum of four 16-bit integers from a generator seeded by the tensor's name; scales keep the
activations of the untrained network in range.
"""

import hashlib
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from secondeye.depth.video_depth_network import Configuration, VideoDepthNetwork
from secondeye.depth.video_depth_weights import released_name

SHAPES = Path(__file__).parent / "vda_keys.json"
SHA256 = "688d747981813a8edadf76ce02f7409ebdac75ee4cdf45fa8e9c48cc64dbc1cb"
GAINS = {  # of the weights whose names end like this; 1 of the others
    "attn.proj.weight": 0.7,
    "mlp.fc2.weight": 0.7,
    "attn.qkv.weight": 1.2,
    "to_q.weight": 1.4,
    "to_k.weight": 1.4,
    "resConfUnit1.conv1.weight": 1.2,
    "resConfUnit1.conv2.weight": 0.8,
    "resConfUnit2.conv1.weight": 1.2,
    "resConfUnit2.conv2.weight": 0.8,
    "temporal_transformer.proj_out.weight": 0.5,
    "output_conv2.0.weight": 1.4,
    "output_conv2.2.weight": 0.4,
}
TRANSPOSED = ("head.resize_layers.0.", "head.resize_layers.1.")


def make_weights() -> dict[str, Tensor]:
    """All tensors of the small network, by released name."""
    table = json.loads(SHAPES.read_text())
    return {name: make_tensor(name, entry["shape"]).float() for name, entry in table.items()}


def make_tensor(name: str, shape: list[int]) -> Tensor:
    if name.endswith("pos_encoder.pe"):
        return positions(*shape[1:])[None]
    unit = noise(name, shape)
    if name.endswith(("pos_embed", "_token")):
        return 0.3 * unit
    if name.endswith("bias"):
        return 0.05 * unit
    if len(shape) == 1:
        return 1 + 0.1 * unit
    fan_in = shape[0] if name.startswith(TRANSPOSED) else math.prod(shape[1:])
    gain = next((gain for end, gain in GAINS.items() if name.endswith(end)), 1.0)
    return unit * (gain / math.sqrt(fan_in))


def noise(name: str, shape: list[int]) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, 2**16, (4, math.prod(shape)), generator=generator)
    deviation = math.sqrt(4 * (2**32 - 1) / 12)
    return ((drawn.sum(0).double() - 2 * (2**16 - 1)) / deviation).reshape(shape)


def positions(length: int, width: int) -> Tensor:
    rates = torch.exp(torch.arange(0, width, 2).double() * (-math.log(10000) / width))
    angles = torch.arange(length).double()[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def digest(weights: dict[str, Tensor]) -> str:
    sha256 = hashlib.sha256()
    for name in sorted(weights):
        sha256.update(name.encode() + weights[name].numpy().tobytes())
    return sha256.hexdigest()


TINY = Configuration(32, 2, 4, (0, 1, 2, 3), 32, (32, 32, 32, 32))


def make_tiny_network() -> VideoDepthNetwork:
    """A network of the released layout with few channels."""
    network = VideoDepthNetwork(TINY)
    weights = {
        name: make_tensor(name, list(like.shape)).float() for name, like in network.state_dict().items()
    }
    weights["head.scratch.output_conv2.2.bias"] += 1  # keeps the last ReLU open
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def to_released_names(network: VideoDepthNetwork) -> dict[str, Tensor]:
    """The weights of a network as its authors would publish them."""
    parts: dict[str, list[Tensor]] = {}
    for name, tensor in network.state_dict().items():
        parts.setdefault(released_name(name)[0], []).append(tensor)
    return {name: torch.cat(tensors) for name, tensors in parts.items()}
