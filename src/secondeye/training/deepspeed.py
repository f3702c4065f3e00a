"""DeepSpeed ZeRO-2: gradients and the optimizer's state are sharded over GPUs.

DeepSpeed runs the optimizer itself. It clips gradients as our loop does, but skips no step: the first one
whose loss or gradient is not finite ends the training, whatever `max_skipped_steps` allows. The optimizer's
state is spread over all processes and is in no checkpoint: a killed training continues from its weights, with
moments of zero.
"""

from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType

from secondeye.params import Optimizer
from secondeye.system.errors import UserError
from secondeye.training.train_state import MAX_GRADIENT_NORM


def is_sharded(accelerator: Accelerator) -> bool:
    """Return whether the processes were started with DeepSpeed."""
    return bool(accelerator.distributed_type == DistributedType.DEEPSPEED)


def configure_sharding(name: str, hyperparams: Optimizer, accelerator: Accelerator) -> None:
    """Set DeepSpeed's config from params.yaml. Raises UserError for what it does not support."""
    if hyperparams.precision == "float16":
        raise UserError(
            f"{name}: with DeepSpeed precision must be float32 or bfloat16; change it in params.yaml"
        )
    config: dict[str, Any] = accelerator.state.deepspeed_plugin.deepspeed_config
    processes, accumulation = accelerator.num_processes, hyperparams.gradient_accumulation_steps
    config |= {
        "train_micro_batch_size_per_gpu": hyperparams.batch_size // (processes * accumulation),
        "train_batch_size": hyperparams.batch_size,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": MAX_GRADIENT_NORM,
        "torch_autocast": {"enabled": hyperparams.precision == "bfloat16", "dtype": "bfloat16"},
    }
