"""Run folders: contents, resumed and reused runs, delivery of weights."""

import shutil
from pathlib import Path
from threading import Timer

import pytest

from secondeye import run_folder
from secondeye.execution import code_hash
from secondeye.params import Gate, TrainDepth, load_params
from secondeye.run_folder import Run, finish_model, make_run_key, open_run
from secondeye.system.errors import UserError
from secondeye.system.files import hash_weights

GATE = Gate(confidence=0.9)


def open_one(runs: Path, key: str = "k1") -> Run:
    return open_run(runs, key, "train_depth", GATE, {"dataset": "abc"})


def write_weights(run: Run, text: str = "weights") -> None:
    run.model.mkdir(exist_ok=True)
    (run.model / "model.safetensors").write_text(text)
    run.log(10, {"loss": 0.5})
    run.picture("what.png").write_bytes(b"png")


def test_new_run_records_stage_params_and_tags(tmp_path: Path) -> None:
    run = open_one(tmp_path)
    assert run.folder == tmp_path / "k1" and run.key == "k1" and not run.finished
    content = run.read()
    assert content["params"] == {"confidence": 0.9}
    assert content["tags"] == {"dataset": "abc"} and content["stage"] == "train_depth"
    assert "git_sha" in (run.folder / "origin.json").read_text()


def test_nested_params_get_dotted_names(in_project: Path, tmp_path: Path) -> None:
    run = open_run(tmp_path, "k", "train_depth", load_params().train_depth, {})
    assert run.read()["params"]["optimizer.seed"] == load_params().train_depth.optimizer.seed


def test_existing_run_is_opened_unchanged(tmp_path: Path) -> None:
    open_one(tmp_path).finish({"weights": "w"})
    again = open_run(tmp_path, "k1", "other", GATE, {"dataset": "other"})
    assert again.finished and again.read()["tags"] == {"dataset": "abc", "weights": "w"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_error_names_the_metrics_file(tmp_path: Path) -> None:
    run = open_one(tmp_path)
    (run.folder / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(
        UserError, match=r"k1/metrics.jsonl: cannot be written \(No space left .*free disk space"
    ):
        run.log(0, {"loss": 1})


def test_rewind_deletes_lines_of_a_phase_from_a_step_on(tmp_path: Path) -> None:
    run = open_one(tmp_path)
    for step in range(4):
        run.log(step, {"first/loss": step})
        run.log(step, {"second/loss": step})
    run.rewind(2, "first/")
    assert [line["step"] for line in run.metrics() if "first/loss" in line] == [0, 1]
    assert [line["step"] for line in run.metrics() if "second/loss" in line] == [0, 1, 2, 3]
    run.rewind(0)
    assert run.metrics() == []


def test_incomplete_last_line_is_ignored(tmp_path: Path) -> None:
    run = open_one(tmp_path)
    run.log(0, {"loss": 1.0})
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "lo')
    assert run.metrics() == [{"step": 0, "loss": 1.0}]


def test_finished_run_is_reused(tmp_path: Path) -> None:
    out, trained = tmp_path / "models" / "depth", []

    def train(run: Run) -> None:
        trained.append(run.key)
        write_weights(run)

    for _ in range(2):
        finish_model(out, open_one(tmp_path / "runs"), train)
    assert trained == ["k1"]
    assert (out / "model.safetensors").read_text() == "weights"
    assert Run(out / "run").finished and Run(out / "run").metrics() == [{"step": 10, "loss": 0.5}]
    assert (out / "run" / "pictures" / "what.png").exists()
    assert not (out / "run" / "origin.json").exists(), "an output must not depend on the machine"
    assert Run(out / "run").read()["tags"]["weights"] == hash_weights(out)


def test_missing_weights_are_restored_from_the_run(tmp_path: Path) -> None:
    out = tmp_path / "models" / "depth"
    finish_model(out, open_one(tmp_path / "runs"), write_weights)
    (out / "run" / "run.json").unlink()
    (out / "model.safetensors").unlink()
    finish_model(out, open_one(tmp_path / "runs"), lambda run: pytest.fail("trained again"))
    assert (out / "model.safetensors").read_text() == "weights"


def test_altered_weights_are_restored_from_the_run(tmp_path: Path) -> None:
    out = tmp_path / "models" / "depth"
    finish_model(out, open_one(tmp_path / "runs"), write_weights)
    (out / "model.safetensors").write_text("noise")
    finish_model(out, open_one(tmp_path / "runs"), lambda run: pytest.fail("trained again"))
    assert (out / "model.safetensors").read_text() == "weights"


def test_run_with_altered_weights_is_rejected(tmp_path: Path) -> None:
    run = open_one(tmp_path / "runs")
    finish_model(tmp_path / "out", run, write_weights)
    (run.model / "model.safetensors").write_text("noise")
    with pytest.raises(UserError, match=f"delete {run.folder} to train it again"):
        finish_model(tmp_path / "other", run, write_weights)


def test_kill_during_delivery_is_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "models" / "depth"
    finish_model(out, open_one(tmp_path / "runs"), write_weights)
    new, unlink = open_one(tmp_path / "runs", "k2"), Path.unlink
    removed: list[Path] = []

    def remove_one(path: Path, missing_ok: bool = False) -> None:
        if removed:
            raise KeyboardInterrupt
        removed.append(path)
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", lambda *given, **named: pytest.fail("killed before"))
        patch.setattr(Path, "unlink", remove_one)
        with pytest.raises(KeyboardInterrupt):
            run_folder._deliver(new, out)
    assert removed == [out / "run" / "run.json"], "the completion record must be removed first"
    finish_model(out, open_one(tmp_path / "runs"), lambda run: pytest.fail("trained again"))
    assert (out / "model.safetensors").read_text() == "weights" and Run(out / "run").key == "k1"


def test_finished_run_has_no_checkpoints(tmp_path: Path) -> None:
    def train(run: Run) -> None:
        (run.checkpoints / "step_1").write_text("half way")
        write_weights(run)

    run = open_one(tmp_path / "runs")
    finish_model(tmp_path / "out", run, train)
    assert not (run.folder / "checkpoints").exists()


def test_another_key_replaces_the_output(tmp_path: Path) -> None:
    out = tmp_path / "models" / "depth"
    finish_model(out, open_one(tmp_path / "runs"), write_weights)
    (out / "stale.json").write_text("{}")
    finish_model(out, open_one(tmp_path / "runs", "k2"), lambda run: write_weights(run, "new"))
    assert (out / "model.safetensors").read_text() == "new"
    assert not (out / "stale.json").exists()
    assert Run(out / "run").key == "k2"


def test_interrupted_run_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "models" / "depth"

    def fail(run: Run) -> None:
        (run.checkpoints / "step_1").write_text("half way")
        raise RuntimeError("killed")

    def resume(run: Run) -> None:
        assert (run.checkpoints / "step_1").read_text() == "half way"
        write_weights(run)

    with pytest.raises(RuntimeError):
        finish_model(out, open_one(tmp_path / "runs"), fail)
    assert list(out.iterdir()) == []
    finish_model(out, open_one(tmp_path / "runs"), resume)
    assert (out / "model.safetensors").exists()


def test_run_is_locked_by_one_process(tmp_path: Path) -> None:
    def train_inside(run: Run) -> None:
        finish_model(tmp_path / "other", run, write_weights)

    with pytest.raises(UserError, match="another process is working in it"):
        finish_model(tmp_path / "out", open_one(tmp_path / "runs"), train_inside)


def test_run_key_depends_on_code_params_and_inputs(in_project: Path) -> None:
    settings: TrainDepth = load_params().train_depth
    key = make_run_key("secondeye.metrics", [settings], {"dataset": "a"})
    assert key == make_run_key("secondeye.metrics", [settings], {"dataset": "a"})
    assert key != make_run_key("secondeye.metrics", [settings], {"dataset": "b"})
    assert key != make_run_key("secondeye.metrics", [GATE], {"dataset": "a"})
    assert key != make_run_key("secondeye.alignment", [settings], {"dataset": "a"})


@pytest.mark.parametrize(
    ("stage", "model"),
    [
        ("train_depth", "depth"),
        ("train_light", "light"),
        ("train_autoencoder", "autoencoder"),
        ("train_diffusion", "diffusion"),
        ("train_deep3d", "deep3d"),
    ],
)
def test_run_key_covers_all_code_of_the_stage(stage: str, model: str) -> None:
    imported = {name for name in code_hash.imports_of(f"secondeye.stages.{stage}") if "secondeye" in name}
    reached = set().union(*(code_hash.reachable_modules(name) for name in imported))
    assert {name for name in reached if not code_hash.is_carrier(name)} <= code_hash.reachable_modules(
        f"secondeye.training.{model}"
    )


def test_other_ranks_wait_for_rank_zero_to_create_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Timer(0.2, (tmp_path / "k1" / "run.json").touch)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(run_folder, "_LONGEST_WAIT_S", 0.1)
    with pytest.raises(UserError, match="see the same folder"):
        open_one(tmp_path)
    assert list(tmp_path.iterdir()) == [], "only rank 0 writes"
    monkeypatch.setattr(run_folder, "_LONGEST_WAIT_S", 60.0)
    (tmp_path / "k1").mkdir()
    opened.start()
    assert open_one(tmp_path).folder == tmp_path / "k1"
    assert [path.name for path in (tmp_path / "k1").iterdir()] == ["run.json"]


def test_only_rank_zero_writes_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, out, trained = open_one(tmp_path / "runs"), tmp_path / "models" / "depth", []
    monkeypatch.setenv("RANK", "1")
    finish_model(out, run, lambda run: trained.append(run.key))
    assert trained == ["k1"] and not out.exists() and not run.finished, "other ranks train without writing"
    monkeypatch.setenv("RANK", "0")
    finish_model(out, run, write_weights)
    monkeypatch.setenv("RANK", "1")
    finish_model(out, run, lambda run: pytest.fail("trained again"))
