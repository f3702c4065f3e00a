"""Export BiDAStereo (arXiv 2403.10755) from your own checkout, so that `match.matcher: exported` can use it.

    python examples/export_bidastereo.py bidavideo bidastereo_sf.pth data/matchers/bidastereo.pt2

The first argument is the folder of your checkout of github.com/TomTomTommi/bidavideo; it has to be named
`bidavideo` and to hold third_party/RAFT with its models/raft-things.pth. The second is one of its published
checkpoints. It needs einops beside this project. docs/matchers.md says what to write in params.yaml.

This script was tried on a stand-in with the checkout's interface, never on the published checkpoints.
"""

import argparse
import os
import sys
import types
from pathlib import Path

import torch
from torch import Tensor, nn


class Exported(nn.Module):
    """The contract of secondeye: [T, 3, H, W] in [0, 1] in, [T, 1, H, W] out."""

    def __init__(self, network: nn.Module, iterations: int) -> None:
        super().__init__()
        self.network, self.iterations = network, iterations

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """The network wants a batch of one, and levels from 0 to 255; it answers [T, 1, 1, H, W]."""
        eyes = (255 * left[None], 255 * right[None])
        return self.network(*eyes, iters=self.iterations, test_mode=True)[:, 0]


def main() -> None:
    """Write the file, and check that it answers as the network does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--frames", type=int, default=20, help="at once: match.exported.window_frames")
    parser.add_argument(
        "--height", type=int, default=256, help="split.height; a multiple of 32, at least 128"
    )
    parser.add_argument("--width", type=int, default=448, help="split.width; a multiple of 32, at least 128")
    parser.add_argument("--iterations", type=int, default=20)
    options = parser.parse_args()
    output, checkpoint = options.output.resolve(), options.checkpoint.resolve()
    network = Exported(build(options.checkout.resolve(), checkpoint), options.iterations)
    eyes = torch.rand(2, options.frames, 3, options.height, options.width)
    with torch.no_grad():
        program = torch.export.export(network, tuple(eyes), strict=False)
        difference = (program.module()(*eyes) - network(*eyes)).abs().max()
    torch.export.save(program, output)
    print(
        f"{output}: {options.frames} frames of {options.width}x{options.height}; off by {difference:.2g} px"
    )


def build(checkout: Path, checkpoint: Path) -> nn.Module:
    """The network with its weights, on the CPU, ready to export."""
    stand_in()
    sys.path.insert(0, str(checkout.parent))
    os.chdir(checkout)  # it looks for RAFT's weights from here
    from bidavideo.models.core.bidastereo import BiDAStereo

    network = BiDAStereo()
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
    weights = weights.get("model", weights)
    network.load_state_dict({name.removeprefix("module."): value for name, value in weights.items()})
    return network.eval().requires_grad_(False)


def stand_in() -> None:
    """What the checkout takes for granted: a GPU, and pytorch3d to call __post_init__."""
    Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]

    class Configurable:
        def __init_subclass__(cls) -> None:
            cls.__init__ = lambda self: self.__post_init__()  # type: ignore[misc]

    for name in ("pytorch3d", "pytorch3d.implicitron", "pytorch3d.implicitron.tools"):
        sys.modules[name] = types.ModuleType(name)
    config = types.ModuleType("pytorch3d.implicitron.tools.config")
    config.Configurable = Configurable  # type: ignore[attr-defined]
    sys.modules[config.__name__] = config


if __name__ == "__main__":
    main()
