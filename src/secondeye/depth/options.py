"""What a caller may choose about how a depth estimator runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DepthOptions:
    """How a network for depth runs; estimators ignore what does not apply to them."""

    resolution_px: int | None = None  # longest side that the network works at; None: the estimator's own
    offload: bool = False  # keep only the part that runs on the GPU
    memory_bytes: int | None = None  # for all; None: a share of what is free
