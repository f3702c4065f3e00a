"""A conversion has the same options at every door; test_flows compares those of the flow."""

import inspect
from types import NoneType
from typing import Any, get_args, get_type_hints

from secondeye import cli
from secondeye.conversion.bundle import settings_from_bundle
from secondeye.registry.register import PARAMS

OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(settings_from_bundle).parameters.items()
    if name != "folder"
}
MLFLOW_TYPES = {float: "double", int: "long", str: "string", bool: "boolean"}


def option_types(function: Any) -> dict[str, str]:
    """Return the type of each option that the function takes, as MLflow calls it."""
    hints = get_type_hints(function)
    return {name: type_name(hint) for name, hint in hints.items() if name in OPTIONS}


def type_name(hint: Any) -> str:
    kinds = set(get_args(hint) or [hint]) - {NoneType}
    return "string" if str in kinds else MLFLOW_TYPES[kinds.pop()]


def test_the_command_line_has_every_option() -> None:
    defaults = {name: given.default for name, given in inspect.signature(cli.convert).parameters.items()}
    others = {
        "film",
        "output",
        "model",
        "preview",
        "plan",
        "overwrite",
        "sidecar",
        "offline",
        "depth_maps",
        "depth_orientation",
    }
    assert {name: default for name, default in defaults.items() if name not in others} == OPTIONS
    assert option_types(cli.convert) == option_types(settings_from_bundle)


def test_the_registered_model_has_every_option_but_the_inpainter() -> None:
    wanted = option_types(settings_from_bundle) | {"overwrite": "boolean"}
    del wanted["inpainter"]  # the model's own
    assert {name: kind for name, (kind, _) in PARAMS.items()} == wanted
    assert all(default is (False if kind == "boolean" else None) for kind, default in PARAMS.values())
