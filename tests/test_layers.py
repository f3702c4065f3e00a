"""Imports point down only, and each outside library has its one room."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter

import pytest

from secondeye.execution import code_hash

SOURCE = code_hash.ROOT

# From the top: a room may import what stands in the lines below its own, and itself. Rooms that share a line
# do not import each other.
LAYERS = [
    ["__main__"],
    ["cli"],
    ["gate", "maintenance", "paper_figures"],
    ["registry"],
    ["stages"],
    ["evaluation", "training"],
    ["conversion"],
    ["run_folder"],
    ["execution"],
    ["dataset", "sources"],
    ["depth"],  # above `inpaint`: DepthCrafter is Stable Video Diffusion, as the inpainter is
    ["inpaint"],
    ["alignment", "deep3d", "film", "matching", "metrics", "splat", "synthetic", "warp"],
    ["report"],
    ["video", "imaging", "params"],
    ["system"],
]
# Who may import what, beyond torch, numpy and the standard library.
ROOMS = {
    "accelerate": {
        "training.deepspeed",
        "training.diffusion_memory",
        "training.loop",
        "training.mixed_precision",
    },
    "av": {"video"},
    "diffusers": {"depth.depthcrafter", "inpaint", "training.diffusion", "training.train_state"},
    "great_expectations": {"stages.validate"},
    "jinja2": {"report"},
    "markupsafe": {"report"},
    "mlflow": {"registry"},
    "onnxruntime": {"imaging.exported_network"},
    "pandas": {"stages.validate", "registry"},
    "peft": {"training.diffusion", "training.lora"},
    "pyarrow": {"dataset.tables"},
    "ray": {"execution.parallel.ray"},
    "scenedetect": {"film.cuts"},
    "scipy": {"alignment.rectification", "dataset.drift", "evaluation.preferences", "metrics.depth"},
    "skimage": set(),  # a peer in tests
    "torchmetrics": set(),  # a peer in tests; metrics.learned reads the weights in it
    "transformers": {
        "depth.hugging_face",
        "depth.depthcrafter",
        "depth.video_depth_network",
        "inpaint",
    },
    "webdataset": {"dataset.shards", "training.export"},
    "typer": {"cli"},
    "yaml": {"params"},
    "prefect": set(),
    "dvc": set(),  # through its command line
    "triton": {"splat.kernel", "warp.kernel"},
}


@cache
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
    for imported in code_hash.imports_of(module):
        target = room_of(imported)
        if imported.split(".")[0] != code_hash.PACKAGE or target in ("", room):
            continue
        assert level_of(target) > level_of(room), f"{module} imports {imported}, which is not below it"


def direct_imports(module: str) -> Iterator[str]:
    """Yield the modules that a module imports anywhere in its text; `from package import module` is one."""
    path = code_hash.source_of(module)
    assert path is not None
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in all_modules() else node.module for name in names)


def test_no_modules_import_each_other() -> None:
    """No circles, neither at module level nor by lazy imports."""
    graph = {module: set(direct_imports(module)) - {module} for module in all_modules()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", all_modules())
def test_libraries_stay_in_their_rooms(module: str) -> None:
    inside = module.removeprefix("secondeye.")
    for imported in code_hash.imports_of(module):
        rooms = ROOMS.get(imported.split(".")[0])
        if rooms is not None:
            assert any(inside == room or inside.startswith(room + ".") for room in rooms), (
                f"{module} imports {imported}; only {sorted(rooms) or 'no package'} may"
            )


@pytest.mark.parametrize("module", all_modules())
def test_names_say_what_is_inside(module: str) -> None:
    assert not {"utils", "common", "helpers", "core", "base", "misc"} & set(module.split("."))


def test_one_function_decides_the_device() -> None:
    sources = {module: code_hash.source_of(module).read_text() for module in all_modules()}  # type: ignore[union-attr]
    asking = {module for module, text in sources.items() if "cuda.is_available" in text}
    assert asking == {"secondeye.system.process"}
