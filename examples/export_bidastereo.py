"""Export BiDAStereo (arXiv 2403.10755) from your own checkout, so that `match.matcher: exported` can use it.

    python examples/export_bidastereo.py bidavideo bidastereo_sf.pth data/matchers/bidastereo.pt2

The first argument is your checkout of github.com/TomTomTommi/bidavideo; the folder must be named `bidavideo`
and contain third_party/RAFT with its models/raft-things.pth. The second is one of its published checkpoints.
Install einops as well. docs/matchers.md describes the settings in params.yaml.

This script was tested on a stand-in with the checkout's interface, not on the published checkpoints.
"""

import argparse
import os
import sys
import types
from pathlib import Path

import torch
from torch import Tensor, nn


class Exported(nn.Module):
    """Wrap the network to the interface of secondeye: [T, 3, H, W] in [0, 1] in, [T, 1, H, W] out."""

    def __init__(self, network: nn.Module, iterations: int) -> None:
        super().__init__()
        self.network, self.iterations = network, iterations

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Add a batch dimension and scale to 0..255 for the network, which returns [T, 1, 1, H, W]."""
        views = (255 * left[None], 255 * right[None])
        return self.network(*views, iters=self.iterations, test_mode=True)[:, 0]


def main() -> None:
    """Write the file, and compare its output with the network's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--frames", type=int, default=20, help="per call: match.exported.window_frames")
    parser.add_argument(
        "--height", type=int, default=256, help="split.height; a multiple of 32, at least 128"
    )
    parser.add_argument("--width", type=int, default=448, help="split.width; a multiple of 32, at least 128")
    parser.add_argument("--iterations", type=int, default=20)
    options = parser.parse_args()
    output, checkpoint = options.output.resolve(), options.checkpoint.resolve()
    network = Exported(build(options.checkout.resolve(), checkpoint), options.iterations)
    views = torch.rand(2, options.frames, 3, options.height, options.width)
    with torch.no_grad():
        program = torch.export.export(network, tuple(views), strict=False)
        difference = (program.module()(*views) - network(*views)).abs().max()
    torch.export.save(program, output)
    print(
        f"{output}: {options.frames} frames of {options.width}x{options.height}; off by {difference:.2g} px"
    )


def build(checkout: Path, checkpoint: Path) -> nn.Module:
    """Load the network with its weights on the CPU, ready to export."""
    replace_requirements()
    sys.path.insert(0, str(checkout.parent))
    os.chdir(checkout)  # it searches RAFT's weights relative to this folder
    from bidavideo.models.core.bidastereo import BiDAStereo

    network = BiDAStereo()
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
    weights = weights.get("model", weights)
    network.load_state_dict({name.removeprefix("module."): value for name, value in weights.items()})
    return network.eval().requires_grad_(False)


def replace_requirements() -> None:
    """Replace what the checkout requires: a GPU, and pytorch3d, which calls __post_init__."""
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
