"""Model registry: self-contained versions."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import register

import secondeye
from secondeye.conversion.bundle import DEFAULT_BUNDLE, settings_from_bundle, write_bundle
from secondeye.conversion.convert import convert
from secondeye.registry import champion, models
from secondeye.registry.register import VersionFacts
from secondeye.registry.server import connected, tracking_uri
from secondeye.system.errors import UserError
from secondeye.system.files import hash_folder, hash_weights
from secondeye.video.probe import probe


@pytest.fixture
def bundle(with_registry: Path) -> Path:
    """Write a bundle without weights to the project folder."""
    return write_bundle(with_registry / "plain", DEFAULT_BUNDLE, None, None)


NOTHING = VersionFacts({}, "")


def register_two(bundle: Path) -> list[int]:
    """Register two versions that differ in a tag."""
    return [register(bundle, VersionFacts({"made": str(n)}, "")) for n in range(2)]


def run_in_new_process(code: str, folder: Path) -> str:
    """Return what this code prints in a new Python process whose working directory is `folder`."""
    folder.mkdir()
    environment = {"MLFLOW_TRACKING_URI": tracking_uri(), "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": ""}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment, cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def test_first_version_becomes_champion_once(bundle: Path) -> None:
    assert champion.champion() is None
    assert [champion.ensure_champion(bundle, NOTHING) for _ in range(2)] == [1, 1]
    assert champion.champion() == 1


def test_first_version_without_alias_becomes_champion_later(bundle: Path) -> None:
    assert register_two(bundle) == [1, 2]  # killed before the alias was set
    assert champion.ensure_champion(bundle, NOTHING) == 1 and champion.champion() == 1


def test_the_same_bundle_code_and_tags_are_one_version(bundle: Path) -> None:
    assert register_two(bundle) == register_two(bundle) == [1, 2]


def test_version_contains_bundle_code_facts_and_no_pickle(bundle: Path) -> None:
    (bundle / "depth").mkdir()
    (bundle / "depth" / "model.safetensors").write_bytes(b"weights")
    with connected() as client:
        source = client.create_run(client.create_experiment("trainings")).info.run_id
    assert register(bundle, VersionFacts({"depth_verdict": "won"}, "Better.", source, {"haarpsi": 0.5})) == 1
    fetched = models.fetch_version("models:/secondeye/1")
    assert fetched.tags["depth_verdict"] == "won"
    assert (fetched.bundle / "depth" / "model.safetensors").read_bytes() == b"weights"
    assert (fetched.folder / "code" / "secondeye" / "conversion" / "convert.py").is_file()
    assert (fetched.folder / "pyfunc_model.py").is_file()
    files = [path for path in fetched.folder.rglob("*") if path.is_file()]
    text = {"", ".py", ".j2", ".json", ".yaml", ".txt", ".md"}
    assert {path.suffix for path in files} <= text | {".safetensors"}
    assert {path.name for path in files if not path.suffix} == {"MLmodel", "registered_model_meta"}
    assert "torch==" in (fetched.folder / "requirements.txt").read_text()
    with connected() as client:
        version = client.get_model_version("secondeye", "1")
        model_id = version.source.removeprefix("models:/")
        logged = client.get_logged_model(model_id)
        outputs = client.get_run(source).outputs.model_outputs
    assert version.description == "Better." and version.run_id == source
    assert version.tags == {
        "depth_verdict": "won",
        "secondeye.code": fetched.code,
        "secondeye.weights": hash_folder(bundle),
        "depth_weights": hash_weights(bundle / "depth"),
    }
    assert version.aliases == ["challenger"]
    assert [output.model_id for output in outputs] == [model_id]
    assert [(metric.key, metric.value) for metric in logged.metrics] == [("haarpsi", 0.5)]


def test_bundle_with_a_pickle_is_rejected(bundle: Path) -> None:
    (bundle / "weights.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"weights.pkl: not allowed in a bundle.*safetensors"):
        register(bundle, NOTHING)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/secondeye@champion", "no version has this alias; run `secondeye model promote NUMBER`"),
        ("models:/secondeye/3", "this version does not exist"),
        ("models:/other/1", "give models:/secondeye@champion or models:/secondeye/NUMBER"),
    ],
)
def test_missing_alias_version_or_model_is_a_user_error(bundle: Path, uri: str, message: str) -> None:
    for registered in (False, True):
        with pytest.raises(UserError, match=message) as error:
            models.fetch_version(uri)
        assert "\n" not in str(error.value)
        registered or register(bundle, NOTHING)


def test_resolved_version_is_cached_and_runs_its_own_code(bundle: Path) -> None:
    champion.ensure_champion(bundle, NOTHING)
    fetched = models.fetch_version("models:/secondeye@champion")
    assert fetched == models.fetch_version("models:/secondeye/1")
    assert str(fetched) == f"secondeye version 1, code {fetched.code}" and len(fetched.code) == 12
    start, environment = models.command_for(fetched)
    assert start[-2:] == ["-m", "secondeye"]
    command = [*start[:-2], "-c", "import secondeye; print(secondeye.__file__)"]
    decoy = bundle.parent / "secondeye" / "__init__.py"  # in the working directory; must not be imported
    decoy.parent.mkdir()
    decoy.write_text("")
    ran = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert Path(ran.strip()).is_relative_to(bundle.parent / ".mlflow" / "models" / "code")
    assert Path(ran.strip()).read_bytes() == Path(secondeye.__file__).read_bytes()


def test_versions_with_the_same_code_share_its_compiled_kernels(bundle: Path) -> None:
    one, two, changed = (
        models.fetch_version(f"models:/secondeye/{number}")
        for number in [*register_two(bundle), register(bundle, VersionFacts({"made": "later"}, ""))]
    )
    (changed.folder / "code" / "secondeye" / "__init__.py").write_text("")
    folders = [models.command_for(each)[1]["PYTHONPATH"].split(os.pathsep)[0] for each in (one, two, changed)]
    assert folders[0] == folders[1] != folders[2]
    for version, folder in ((one, folders[0]), (changed, folders[2])):
        sources = [
            {path.relative_to(root): path.read_bytes() for path in root.rglob("*.py")}
            for root in (Path(folder), version.folder / "code")
        ]
        assert sources[0] == sources[1]


def test_commands_that_only_talk_to_mlflow_do_not_import_torch() -> None:
    names = ("champion", "conversion_run", "lineage", "models", "publish")
    modules = ", ".join(f"secondeye.registry.{name}" for name in names)
    code = f"import sys, secondeye.cli, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow(seconds=29)
def test_pyfunc_converts_a_film_in_a_new_process(bundle: Path, make_film: Callable[..., Path]) -> None:
    film = make_film(shots=(8,))
    champion.ensure_champion(bundle, NOTHING)
    out = bundle.parent / "out.mp4"
    code = (
        "import mlflow, pandas\n"
        "PARAMS = {'strength_percent': 2.0, 'crf': 51, 'tiles': 'auto', 'max_memory_gb': 2.0}\n"
        "model = mlflow.pyfunc.load_model('models:/secondeye@champion')\n"
        "signature = model.metadata.signature\n"
        "print(signature.inputs.input_names(), signature.outputs.input_names())\n"
        "import secondeye; print(secondeye.__file__)\n"
        f"films = pandas.DataFrame({{'input_path': [{str(film)!r}], 'output_path': [{str(out)!r}]}})\n"
        "print(model.predict(films, params=PARAMS).to_dict('records'))\n"
    )
    schema, where, *_, converted = run_in_new_process(code, bundle.parent / "elsewhere").splitlines()
    assert schema == "['input_path', 'output_path'] ['output_path', 'frames']"
    assert where.startswith(str(bundle.parent / ".mlflow" / "artifacts"))
    assert converted == str([{"output_path": str(out), "frames": 8}])
    assert (probe(out).width, probe(out).height) == (128, 48)


@pytest.mark.slow(seconds=12)
def test_command_converts_with_the_code_of_the_version(bundle: Path, make_film: Callable[..., Path]) -> None:
    """It compiles no kernel that is compiled for this checkout."""
    film, output = make_film(shots=(8,)), bundle.with_name("made.mp4")
    convert(film, bundle.with_name("here.mp4"), settings_from_bundle(bundle))
    code = bundle.with_name(".mlflow") / "models" / "code"
    code.unlink()  # that all tests share
    code.mkdir()
    champion.ensure_champion(bundle, NOTHING)
    fetched = models.fetch_version("models:/secondeye@champion")
    start, environment = models.command_for(fetched)
    kernels = {path: path.stat().st_mtime_ns for path in code.rglob("*.nb[ic]")}
    command = [*start, "convert", film, "--model", fetched.bundle, "--output", output]
    subprocess.run(command, env=environment, check=True)
    assert (probe(output).width, probe(output).height) == (128, 48)
    assert kernels and {path: path.stat().st_mtime_ns for path in code.rglob("*.nb[ic]")} == kernels
