"""LoRA (arXiv 2106.09685) on the layers that are trained, for GPUs that cannot hold gradients and moments.

peft puts the adapters into the network; they are merged into its weights at the end, so that what is saved is
an ordinary network.
"""

from typing import TYPE_CHECKING, Any

from torch import nn

from secondeye.system.errors import UserError

if TYPE_CHECKING:
    from peft import LoraModel

WHOLE = "conv_in"  # is trained whole: its weights for the mask start at zero, and it is small


def add_lora(
    network: Any,  # UNetSpatioTemporalConditionModel; what is frozen stays without adapters
    rank: int,
    alpha: int,  # the adapters' output is multiplied by alpha / rank
) -> "LoraModel":
    """Freeze the layers that are trained and put adapters beside them, in place; they start at zero.

    Linear layers and 2D convolutions get adapters; their biases and the norms stay as they are. Draws the
    adapters' initial weights from torch. Raises UserError if peft is not installed.
    """
    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise UserError("lora_rank needs peft; install it with `pip install peft`") from error
    targets = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and name != WHOLE and module.weight.requires_grad
    ]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets)
    adapted = LoraModel(network, config, "default")
    network.get_submodule(WHOLE).requires_grad_(True)
    return adapted


def merge_lora(adapted: "LoraModel") -> None:
    """Add the adapters to the weights beside them and remove them, in place."""
    adapted.merge_and_unload()
