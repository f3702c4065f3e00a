"""Shared fixtures and helpers: real footage, small films, rows of the tables."""

import math
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from secondeye.dataset.schema import Clip, ClipQuality, Correction, EvalClip, Film, Score
from secondeye.params import Params, apply_preset, load_params
from secondeye.registry.register import VersionFacts, register_bundle
from secondeye.registry.server import connected
from secondeye.synthetic import Shot, two_planes
from secondeye.video import multiview, read
from secondeye.video.probe import BT709
from secondeye.video.read import with_timestamps
from secondeye.video.write import FilmWriter, write_film

os.environ["HF_HUB_OFFLINE"] = "1"  # tests run offline
# Each of the many processes that tests start would otherwise compile the package for itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
if find_spec("triton") and not torch.cuda.is_available():
    # Triton reads the variable when it and the kernels are imported, secondeye at every call: kernels can be
    # interpreted, but `auto` stays on `cpu` unless a test asks for the fixture `interpreter`.
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRITON_INTERPRET", "1")
        import secondeye.splat.kernel
        import secondeye.warp.kernel  # noqa: F401

PROJECT = Path(__file__).parent.parent


@pytest.hookimpl(trylast=True)  # after tests are deselected by their marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start the longest of the slow tests first: each process begins with a part of the list."""

    def seconds(item: pytest.Item) -> float:
        mark = item.get_closest_marker("slow")
        return float(mark.kwargs.get("seconds", 0)) if mark else 0.0

    if any(map(seconds, items)):
        items.sort(key=seconds, reverse=True)
        processes = getattr(config, "workerinput", {"workercount": 1})["workercount"]
        items[:] = [item for process in range(processes) for item in items[process::processes]]


def load_preset(name: str, folder: Path) -> Params:
    """Apply a preset to a copy of params.yaml in `folder` and load it."""
    path = Path(shutil.copy(PROJECT / "params.yaml", folder))
    apply_preset(PROJECT / "presets" / f"{name}.yaml", path)
    return load_params(path)


@pytest.fixture
def footage() -> Path:
    """Return the folder of real footage, or skip the test."""
    folder = os.environ.get("SECONDEYE_FOOTAGE")
    if not folder:
        pytest.skip("SECONDEYE_FOOTAGE is not set: no real footage to test on")
    return Path(folder)


@pytest.fixture
def models() -> Path:
    """Return the folder of real networks, or skip the test."""
    folder = os.environ.get("SECONDEYE_MODELS")
    if not folder:
        pytest.skip("SECONDEYE_MODELS is not set: no real networks to test on")
    return Path(folder)


def moving_images(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a textured, moving shot: smooth noise that drifts to the left, uint8 [T, H, W, 3]."""
    rng = np.random.default_rng(seed)
    wide = rng.uniform(0, 255, (height // 8 + 2, (width + 2 * frames) // 8 + 2, 3)).astype(np.float32)
    import cv2

    canvas = cv2.resize(wide, (width + 2 * frames, height), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    return np.stack([canvas[:, 2 * t : 2 * t + width] for t in range(frames)]).round().astype(np.uint8)


def coarse_cards(
    frames: int, height: int, width: int, near_px: int, far_px: int, card_px: int, seed: int
) -> Shot:
    """Render `two_planes` at a quarter of the size and enlarge it, so that its texture survives a codec."""
    small = two_planes(
        frames=frames,
        height=height // 4,
        width=width // 4,
        near_px=near_px // 4,
        far_px=far_px // 4,
        card_px=card_px // 4,
        seed=seed,
    )
    large = {
        name: array.repeat_interleave(4, -1).repeat_interleave(4, -2) for name, array in vars(small).items()
    }
    return Shot(
        **large | {"disparity": large["disparity"] * 4, "right_disparity": large["right_disparity"] * 4}
    )


@pytest.fixture
def make_film(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a small film, with or without sound, with given timestamps."""

    def make(
        name: str = "film.mp4",
        *,
        shots: tuple[int, ...] = (9, 8),
        height: int = 48,
        width: int = 64,
        sound: bool = True,
        stamps_ms: list[int] | None = None,
    ) -> Path:
        path = tmp_path / name
        images = np.concatenate([moving_images(n, height, width, seed) for seed, n in enumerate(shots)])
        if stamps_ms is not None:
            _write_stamped(path, images, stamps_ms)
            return path
        time = np.arange(sum(shots) * 48000 // 24) / 48000
        tone = np.stack([np.sin(2 * np.pi * 440 * time)] * 2).astype(np.float32) * 0.2
        write_film(path, iter(images), Fraction(24), audio=tone if sound else None)
        return path

    return make


def _write_stamped(path: Path, images: np.ndarray, stamps_ms: list[int]) -> None:
    height, width = images.shape[1:3]
    base = Fraction(1, 1000)
    with FilmWriter(path, width, height, fps=Fraction(24), time_base=base, colour=BT709) as writer:
        for image, stamp in zip(images, stamps_ms, strict=True):
            writer.write(image, stamp)


@pytest.fixture
def in_project(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run the test in the project's folder, with params.yaml and dvc.yaml."""
    project = Path(__file__).parent.parent
    monkeypatch.chdir(project)
    yield project


def frame_seconds(film: Path) -> list[Fraction]:
    """Return the display time of every frame."""
    base = read.probe(film).time_base
    return [frame.pts * base for frame in read.decode_film(film)]


def sound_packets(film: Path) -> list[tuple[Fraction, bytes]]:
    """Return time and bytes of every packet of sound."""
    import av

    with av.open(str(film)) as container:
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(audio=0) if p.size]


def damage(film: Path, *, rest: bool = False) -> Path:
    """Make a frame in the middle of a film, or all from there, undecodable: its length exceeds the packet."""
    import av

    with av.open(str(film)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [packet.pos for packet in packets[len(packets) // 2 :]]
    content = bytearray(film.read_bytes())
    for place in places if rest else places[:1]:
        content[place : place + 4] = b"\xff\xff\xff\xff"
    film.write_bytes(content)
    return film


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that records every frame, or pair of views, that a decoder returns."""
    counted: list[int] = []

    def counting(*given: Any, **options: Any) -> Iterator[tuple[int, Any, int]]:
        for frame in with_timestamps(*given, **options):
            counted.append(frame[0])
            yield frame

    for module in (read, multiview):
        monkeypatch.setattr(module, "with_timestamps", counting)
    return counted


@pytest.fixture
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `auto` be `triton` on the CPU, where kernels are interpreted, which is slow; skips with a GPU."""
    pytest.importorskip("triton", reason="Triton is not installed: it is for Linux on x86_64 only")
    if torch.cuda.is_available():
        pytest.skip("with a GPU the kernels are not interpreted")
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture
def launches(interpreter: None, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the launches of interpreted Triton kernels by name."""
    from triton.runtime.interpreter import GridExecutor

    counted: Counter[str] = Counter()
    launch = GridExecutor.__call__

    def count(self: Any, *args: Any, **options: Any) -> Any:
        counted[self.fn.__name__] += 1
        return launch(self, *args, **options)

    monkeypatch.setattr(GridExecutor, "__call__", count)
    return counted


def on_any_backend(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap splat or warp for CPU arrays; Triton kernels run on the GPU, or interpreted without one."""

    def run(frames: Tensor, disparity: Tensor, *, backend: str = "auto", **options: Any) -> Any:
        triton = backend.startswith("triton")
        device = "cuda" if triton and torch.cuda.is_available() else "cpu"
        with pytest.MonkeyPatch.context() as patch:
            if triton and device == "cpu":
                patch.setenv("TRITON_INTERPRET", "1")
            made = operation(frames.to(device), disparity.to(device), backend=backend, **options)
        return type(made)(*(array.cpu() for array in made))

    return run


def wait_until_dead(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Return the processes that still run after `seconds`. Zombies count as dead."""

    def runs(process: psutil.Process) -> bool:
        try:
            return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        except psutil.NoSuchProcess:
            return False

    deadline = time.monotonic() + seconds
    while any(map(runs, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return [process for process in processes if runs(process)]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run torch on one thread, which is faster for small arrays."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create an empty MLflow database once, because this takes seconds."""
    from secondeye.registry.server import connected

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        with connected() as client:
            client.search_experiments()
    return path


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all processes of pytest-xdist share."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def make_registry(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Return a function that gives a project an empty MLflow database.

    The code of registered versions is shared by all tests: it is the same, and compiled once.
    """
    code = shared_folder(tmp_path_factory) / "registered_code"
    code.mkdir(exist_ok=True)

    def make(project: Path) -> None:
        (project / ".mlflow" / "models").mkdir(parents=True)
        (project / ".mlflow" / "models" / "code").symlink_to(code)
        shutil.copyfile(database, project / ".mlflow" / "mlflow.db")

    return make


@pytest.fixture
def with_registry(
    tmp_path: Path, make_registry: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Change into a project folder with an empty MLflow database."""
    make_registry(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def register(bundle: Path, facts: VersionFacts) -> int:
    """Register a version without promoting it and return its number."""
    with connected() as client:
        return register_bundle(client, bundle, facts)


def score_row(clip: str, film: str, method: str, kind: str = "inpainter", **scores: float) -> Score:
    """Return a row of scores; NaN unless given."""
    numbers = {field.name: math.nan for field in fields(Score) if field.type in (float, "float")}
    return Score(f"{clip} {method}", "key", clip, film, method, kind, **(numbers | scores))


def eval_clip(clip: str, film: str, key: str = "k") -> EvalClip:
    """Return an evaluation clip of which a tenth is disoccluded."""
    return EvalClip(clip, key, film, "truth", "digest", 0.0, 0.8, 0.1, 0.1)


def a_film(id: str, **changes: Any) -> Film:
    """Return an ordinary row of the table of films; the next two helpers return rows of other tables."""
    row = Film(id, id, "sbs", "", "CC0-1.0", 64, 128, 1.0, 24.0, 100, 1, 5, 0, 0, 0, 0, 1e6, "")
    return replace(row, **changes)


def a_clip(id: str, film: str, **changes: Any) -> Clip:
    return replace(Clip(id, "k", film, 0, 0, 10, 0.0, 1, 64, 128, ""), **changes)


def a_shift(id: str, **changes: Any) -> Correction:
    row = Correction(
        id, "k", 0, 0, 0, 0, 0, 0, 1, 0, False, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0, 0, 6.0, 1.0, 1.0, False, ""
    )
    return replace(row, **changes)


def a_score(id: str, **changes: Any) -> ClipQuality:
    row = ClipQuality(id, "k", 30.0, 30.0, 0.9, 0.05, 0.9, 0.1, 4.0, 1.0, 8.0, 1.0, 1.0, 64, 128)
    return replace(row, **changes)


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folders of the released diffusion models, tiny and of random weights; not to be changed."""
    from conformance.tiny_release import write_release

    folder = tmp_path_factory.mktemp("release")
    write_release(folder)
    return folder


@pytest.fixture(scope="session")
def vgg16_features() -> nn.Sequential:
    """Return torchvision's VGG16 `features` with random weights."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    before = 3
    for channels in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if channels:
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU(inplace=True)]
            nn.init.kaiming_normal_(layers[-2].weight, nonlinearity="relu")
            before = channels
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers).requires_grad_(False)


@pytest.fixture(scope="session")
def vgg16_folder(vgg16_features: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save random weights like timm, with a part of the classifier."""
    made = tmp_path_factory.mktemp("vgg16")
    weights = {f"features.{name}": tensor for name, tensor in vgg16_features.state_dict().items()}
    save_file({**weights, "head.fc.bias": torch.zeros(1000)}, made / "model.safetensors")
    return made


FLOWS = (  # modules of flows/
    "turn",
    "commands",
    "inbox_record",
    "inbox",
    "watchdog",
    "notify",
    "dvc_stages",
    "night",
    "dataset",
    "training",
    "inbox_record",
    "inbox",
    "conversion",
    "schedules",
    "serve",
)


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Import the modules of flows/ with a temporary Prefect home; they wait for no other test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        patch.syspath_prepend(PROJECT / "flows")
        modules = SimpleNamespace(**{name: import_module(name) for name in FLOWS})
        patch.setattr(modules.turn, "others_at_work", lambda share_machine=False: [])
        yield modules
        for name in FLOWS:
            sys.modules.pop(name, None)


@pytest.fixture
def conversion(flows: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return flows/conversion.py with its tasks as plain functions, and its `artifacts` in a list."""
    call_without_server(flows.conversion, tmp_path, monkeypatch)
    return flows.conversion


def call_without_server(module: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the tasks of flows/conversion.py, which need a Prefect server, by their functions."""
    for name in ("find_champion", "convert", "record"):
        monkeypatch.setattr(module, name, getattr(module, name).fn)
    artifacts: list[dict[str, Any]] = []
    monkeypatch.setattr(module, "artifacts", artifacts, raising=False)
    monkeypatch.setattr(
        module, "create_table_artifact", lambda rows, *, key, description: artifacts.append({key: rows})
    )
    monkeypatch.setattr(sys.modules["turn"], "LOCK", folder / "lock" / "turn.lock")


@pytest.fixture
def lines(flows: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the log lines of tasks called through `.fn`."""
    logged: list[str] = []
    for name in ("commands", "dvc_stages", "notify", "night", "dataset", "training", "conversion"):
        monkeypatch.setattr(getattr(flows, name), "run_log", lambda: logged.append)
    return logged
