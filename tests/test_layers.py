"""Imports point down only, and each outside library has its one room."""

from pathlib import Path

import pytest

from secondeye import modules

SOURCE = Path(modules.__file__).parent

# From the top: a room may import what stands in the lines below its own, and itself. Rooms that share a line
# do not import each other.
LAYERS = [
    ["__main__"],
    ["cli"],
    ["doctor", "garbage", "gate"],
    ["registry"],
    ["stages"],
    ["dataset_report", "drift", "evaluation", "training"],
    ["conversion", "scan"],
    [
        "inpaint",
        "depth",
        "matching",
        "splat",
        "warp",
        "parallax",
        "metrics",
        "world",
        "shots",
        "looks",
        "borders",
        "fingerprint",
    ],
    ["estimate", "keep", "views", "sources", "runs"],
    ["report"],
    ["clips", "flow", "tables", "packing", "params", "disk", "dvc_cache", "spread", "truth", "validated"],
    ["video", "arrays", "backends", "rows", "modules", "process", "stored"],
    ["files", "refusal", "words"],
]
# Who may import what, beyond torch, numpy and the standard library.
ROOMS = {
    "accelerate": {"training.loop", "training.precision", "training.sharding"},
    "av": {"video"},
    "diffusers": {"inpaint", "training.diffusion"},
    "great_expectations": {"stages.validate"},
    "mlflow": {"registry"},
    "onnxruntime": {"matching.exported_file"},
    "pandas": {"stages.validate", "registry"},
    "pyarrow": {"tables"},
    "ray": {"spread.cluster"},
    "scenedetect": {"shots"},
    "scipy": {"drift", "metrics.depth"},
    "skimage": set(),  # a peer in tests
    "torchmetrics": set(),  # a peer in tests; metrics.learned reads the weights in it
    "transformers": {"depth.anything", "inpaint"},
    "webdataset": {"training.export"},
    "typer": {"cli"},
    "yaml": {"params"},
    "prefect": set(),
    "dvc": {"drift", "dvc_cache"},
    "dvc_data": {"drift"},
    "dvc_objects": {"dvc_cache"},
    "triton": {"splat.kernel", "warp.kernel"},
}


def all_modules() -> list[str]:
    paths = (path.relative_to(SOURCE.parent).with_suffix("") for path in SOURCE.rglob("*.py"))
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths)


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def level_of(room: str) -> int:
    return next(level for level, rooms in enumerate(LAYERS) if room in rooms)


def test_every_room_has_its_layer() -> None:
    known = {room for rooms in LAYERS for room in rooms}
    assert {room_of(module) for module in all_modules()} - {""} == known


@pytest.mark.parametrize("module", all_modules())
def test_imports_point_down(module: str) -> None:
    room = room_of(module)
    for imported in modules.imports_of(module):
        target = room_of(imported)
        if imported.split(".")[0] != modules.PACKAGE or target in ("", room):
            continue
        assert level_of(target) > level_of(room), f"{module} imports {imported}, which is not below it"


@pytest.mark.parametrize("module", all_modules())
def test_libraries_stay_in_their_rooms(module: str) -> None:
    inside = module.removeprefix("secondeye.")
    for imported in modules.imports_of(module):
        rooms = ROOMS.get(imported.split(".")[0])
        if rooms is not None:
            assert any(inside == room or inside.startswith(room + ".") for room in rooms), (
                f"{module} imports {imported}; only {sorted(rooms) or 'nobody'} may"
            )


@pytest.mark.parametrize("module", all_modules())
def test_names_say_what_is_inside(module: str) -> None:
    assert not {"utils", "common", "helpers", "core", "base", "misc"} & set(module.split("."))
