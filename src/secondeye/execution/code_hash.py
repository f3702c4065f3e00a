"""Hash the code that a module runs: itself and every module of this package that it imports."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGE = "secondeye"
ROOT = Path(__file__).resolve().parents[1]  # the folder of the package

# Libraries that affect results: import name -> distribution name.
_LIBRARIES = {
    "accelerate": "accelerate",
    "av": "av",
    "cv2": "opencv-python-headless",
    "diffusers": "diffusers",
    "numba": "numba",
    "numpy": "numpy",
    "peft": "peft",
    "safetensors": "safetensors",
    "scenedetect": "scenedetect-headless",
    "scipy": "scipy",
    "torch": "torch",
    "transformers": "transformers",
    "webdataset": "webdataset",
}
# Modules that carry results without affecting them: a reworded error or a new stage rebuilds nothing.
# Values of params.yaml and the columns of rows enter a key separately.
_CARRIERS = (
    "dataset.checksums",
    "dataset.reader",
    "dataset.schema",
    "dataset.stamp",
    "dataset.tables",
    "inpaint.svd_shapes",
    "params",
    "run_folder",
    "stages",
    "training.diffusion_memory",
    "training.memory_table",
    "training.step_memory",
)
_CARRIER_PACKAGES = ("execution", "system")  # all of their modules


@cache
def code_and_versions(module: str) -> dict[str, object]:
    """Return what results of a module depend on besides their inputs: code hash and library versions."""
    code = {name for name in reachable_modules(module) if not is_carrier(name)}
    return {"code": code_hash(code), "libraries": library_versions(libraries_of(code))}


def is_carrier(module: str) -> bool:
    """Return whether a module of this package carries results without affecting them."""
    inside = module.removeprefix(PACKAGE).removeprefix(".")
    return not inside or inside in _CARRIERS or inside.split(".")[0] in _CARRIER_PACKAGES


def libraries_of(modules: Iterable[str]) -> list[str]:
    """Return the distributions that these modules import and that affect results."""
    imported = {name.split(".")[0] for module in modules for name in imports_of(module)}
    return sorted(_LIBRARIES[name] for name in imported & _LIBRARIES.keys())


def library_versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the installed version of each distribution."""
    return {name: version(name) for name in libraries}


def source_of(module: str) -> Path | None:
    """Return the file of a module of this package, or None if there is no such module."""
    stem = ROOT.joinpath(*module.split(".")[1:])
    for path in (stem / "__init__.py", stem.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def reachable_modules(module: str) -> set[str]:
    """Return every module of this package that `module` can load, including itself and lazy imports."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting += [imported for imported in imports_of(name) if imported.split(".")[0] == PACKAGE]
        waiting += [name.rpartition(".")[0]] if "." in name else []
    return found


def imports_of(module: str) -> tuple[str, ...]:
    """Return the modules that a module imports anywhere in its source, including those of other packages."""
    return _parse(module)[0]


def code_hash(modules: Iterable[str]) -> str:
    """Hash the syntax trees of modules without docstrings, so that comments and docstrings do not matter."""
    digest = hashlib.sha256()
    for module in sorted(modules):
        digest.update(module.encode() + _parse(module)[1])
    return digest.hexdigest()


@cache
def _parse(module: str) -> tuple[tuple[str, ...], bytes]:
    """Return what a module imports, and its syntax tree without docstrings; parse it once."""
    path = source_of(module)
    assert path is not None, module
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree))
    imported = tuple(dict.fromkeys(_imported(nodes)))
    _drop_docstrings(nodes)
    return imported, ast.dump(tree).encode()


def _imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "relative imports are not used here"
            yield node.module
            if node.module.split(".")[0] == PACKAGE:
                names = (f"{node.module}.{alias.name}" for alias in node.names)
                yield from (name for name in names if source_of(name) is not None)


def _drop_docstrings(nodes: Iterable[ast.AST]) -> None:
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
