"""Gradients and the optimiser's state shared out among GPUs: ZeRO-2, by DeepSpeed, which steps by itself.

It clips as we do, but leaves no step out. Its optimiser's state lies in parts on all processes and is in no
checkpoint: a training that was killed goes on from its weights, with moments of zero.
"""

from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType

from secondeye.params import Optimizer
from secondeye.system.errors import UserError
from secondeye.training.train_state import LARGEST_GRADIENT


def is_sharded(accelerator: Accelerator) -> bool:
    return bool(accelerator.distributed_type == DistributedType.DEEPSPEED)


def configure_sharding(name: str, hyperparams: Optimizer, accelerator: Accelerator) -> None:
    """Tell DeepSpeed what params.yaml says; Refusal for what it can not do here."""
    if hyperparams.precision == "float16" or hyperparams.max_skipped_steps:
        raise UserError(
            f"{name}: with DeepSpeed precision must be float32 or bfloat16, and max_skipped_steps 0, as it "
            "leaves no step out; change them in params.yaml"
        )
    config: dict[str, Any] = accelerator.state.deepspeed_plugin.deepspeed_config
    processes, parts = accelerator.num_processes, hyperparams.gradient_accumulation_steps
    config |= {
        "train_micro_batch_size_per_gpu": hyperparams.batch_size // (processes * parts),
        "train_batch_size": hyperparams.batch_size,
        "gradient_accumulation_steps": parts,
        "gradient_clipping": LARGEST_GRADIENT,
        "torch_autocast": {"enabled": hyperparams.precision == "bfloat16", "dtype": "bfloat16"},
    }
