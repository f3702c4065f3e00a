"""The stages: one module, one DVC stage, one section of params.yaml, one folder.

A stage is `run(*paths, *, sections)`: paths before the star, sections of params.yaml after it. It runs
without DVC.
"""

STAGES = (
    "split",
    "shift",
    "match",
    "splat",
    "quality",
    "filter",
    "validate",
    "synthetic",
    "train_depth",
    "train_inpaint",
    "evaluate",
)
