"""The stages of the pipeline. Each is one module, one DVC stage, one section of params.yaml and one folder.

A stage is `run(data, ..., *, section, ...)`: positional paths, then sections of params.yaml. It reads its
inputs from the data root and writes its own folder there. Stages run without DVC.
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
    "train_light",
    "train_autoencoder",
    "train_diffusion",
    "train_deep3d",
    "evaluate",
)
