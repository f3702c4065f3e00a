"""Tiny depth networks of random weights, in the folder layout of the released ones."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DepthProConfig,
    DepthProForDepthEstimation,
    DPTConfig,
    DPTForDepthEstimation,
    GLPNConfig,
    GLPNForDepthEstimation,
    Tipsv2DptConfig,
    Tipsv2DptForDepthEstimation,
    ZoeDepthConfig,
    ZoeDepthForDepthEstimation,
)

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_DINOV2: dict[str, Any] = {
    "model_type": "dinov2",
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
_STAGES = {"out_indices": [1, 2, 3, 4], "apply_layernorm": True, "reshape_hidden_states": False}
_DPT: dict[str, Any] = {
    "image_processor_type": "DPTImageProcessor",
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "keep_aspect_ratio": True,
    "resample": 3,
    "size": {"height": 56, "width": 56},
    "image_mean": MEAN,
    "image_std": STD,
}
NETWORKS = ("relative", "metric", "dpt", "dpt-dinov2", "glpn", "zoedepth", "depth-pro", "tipsv2")
METRIC = ("metric", "dpt-dinov2", "glpn", "zoedepth", "tipsv2")


def write_model(folder: Path, network: str) -> Path:
    """Write a tiny model, one of NETWORKS, with a model card."""
    torch.manual_seed(7)
    model, preprocessor = _MAKERS[network]()
    for weights in model.parameters():  # as initialised it gives nearly one value everywhere
        if weights.ndim > 1:
            torch.nn.init.kaiming_normal_(weights)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags:\n- depth\n---\n\n# A model\n")
    return folder


def _depth_anything(kind: str) -> tuple[Any, dict[str, Any]]:
    config = DepthAnythingConfig(
        backbone_config=_DINOV2 | _STAGES,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
        depth_estimation_type=kind,
        max_depth=20,
    )
    model = DepthAnythingForDepthEstimation(config)
    torch.nn.init.constant_(model.head.conv3.bias, 1.0)  # keeps the last ReLU open
    return model, _DPT | {"ensure_multiple_of": 14}


def _dpt() -> tuple[Any, dict[str, Any]]:
    config = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
    )
    model = DPTForDepthEstimation(config)
    torch.nn.init.constant_(model.head.head[4].bias, 2.0)
    half = [0.5, 0.5, 0.5]
    return model, {  # as the oldest released ones: a number for the size, and another name of the processor
        "feature_extractor_type": "DPTFeatureExtractor",
        "do_resize": True,
        "do_normalize": True,
        "image_mean": half,
        "image_std": half,
        "resample": 2,
        "size": 64,
    }


def _dpt_dinov2() -> tuple[Any, dict[str, Any]]:
    config = DPTConfig(
        backbone_config=_DINOV2 | {"out_indices": [1, 2, 3, 4], "reshape_hidden_states": False},
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=256,  # of the projection, which has no option
        add_projection=True,
    )
    model = DPTForDepthEstimation(config)
    torch.nn.init.constant_(model.head.head[4].bias, 2.0)
    return model, _DPT | {"do_resize": False, "do_pad": True, "size_divisor": 14, "keep_aspect_ratio": False}


def _glpn() -> tuple[Any, dict[str, Any]]:
    config = GLPNConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=8,
    )
    preprocessor = {"image_processor_type": "GLPNImageProcessor", "size_divisor": 32, "resample": 2}
    return GLPNForDepthEstimation(config), preprocessor


def _zoedepth() -> tuple[Any, dict[str, Any]]:
    backbone = {
        "model_type": "beit",
        "image_size": 64,
        "patch_size": 16,
        "num_hidden_layers": 4,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "use_relative_position_bias": True,
        "reshape_hidden_states": False,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
    config = ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        num_relative_features=8,
        bottleneck_features=8,
        bin_embedding_dim=8,
        num_attractors=[4, 2, 2, 1],
        bin_configurations=[{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}],
    )
    return ZoeDepthForDepthEstimation(config), _DPT | {
        "image_processor_type": "ZoeDepthImageProcessor",
        "ensure_multiple_of": 32,
        "do_pad": True,
        "resample": 2,
        "size": {"height": 64, "width": 96},
    }


def _depth_pro() -> tuple[Any, dict[str, Any]]:
    encoder = _DINOV2 | {"image_size": 28}
    config = DepthProConfig(
        patch_size=28,
        fusion_hidden_size=16,
        intermediate_hook_ids=[3, 1],
        intermediate_feature_dims=[8, 8],
        scaled_images_feature_dims=[16, 16, 8],
        merge_padding_value=0,
        use_fov_model=True,
        image_model_config=encoder,
        patch_model_config=encoder,
        fov_model_config=encoder,
    )
    return DepthProForDepthEstimation(config), {
        "image_processor_type": "DepthProImageProcessorFast",
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
        "size": {"height": 112, "width": 112},
    }


def _tipsv2() -> tuple[Any, dict[str, Any]]:
    config = Tipsv2DptConfig(
        backbone_config=_DINOV2 | {"model_type": "tipsv2_vision_model", **_STAGES},
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        num_depth_bins=8,
    )
    preprocessor = {"image_processor_type": "Tipsv2DptImageProcessor", "size": {"height": 56, "width": 56}}
    return Tipsv2DptForDepthEstimation(config), preprocessor


_MAKERS = {
    "relative": lambda: _depth_anything("relative"),
    "metric": lambda: _depth_anything("metric"),
    "dpt": _dpt,
    "dpt-dinov2": _dpt_dinov2,
    "glpn": _glpn,
    "zoedepth": _zoedepth,
    "depth-pro": _depth_pro,
    "tipsv2": _tipsv2,
}
