from pathlib import Path

import pytest

from secondeye.execution import code_hash


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package with the name of this one."""
    (tmp_path / "room").mkdir()
    texts = {
        "__init__.py": '"""Top."""\n',
        "room/__init__.py": "",
        "room/door.py": "def go():\n    from secondeye.room import lazy\n    return lazy.VALUE\n",
        "room/lazy.py": '"""Lazy."""\nVALUE = 1  # a comment\n',
        "other.py": "import os\n",
        "measure.py": "import numpy as np\ndef go():\n    from scipy.stats import t\n    import tqdm\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(code_hash, "ROOT", tmp_path)
    code_hash.imports_of.cache_clear()
    yield tmp_path
    code_hash.imports_of.cache_clear()


def test_lazy_imports_and_packages_are_reached(package: Path) -> None:
    wanted = {"secondeye", "secondeye.room", "secondeye.room.door", "secondeye.room.lazy"}
    assert code_hash.reachable_modules("secondeye.room.door") == wanted


def test_comments_and_docstrings_change_no_hash_but_code_does(package: Path) -> None:
    reached = code_hash.reachable_modules("secondeye.room.door")
    before = code_hash.code_hash(reached)
    (package / "room/lazy.py").write_text('"""Other words."""\n\nVALUE = 1\n')
    assert code_hash.code_hash(reached) == before
    (package / "room/lazy.py").write_text("VALUE = 2\n")
    assert code_hash.code_hash(reached) != before


def test_libraries_are_imported_ones_that_affect_results(package: Path) -> None:
    assert code_hash.libraries_of(code_hash.reachable_modules("secondeye.measure")) == ["numpy", "scipy"]
    assert code_hash.libraries_of(code_hash.reachable_modules("secondeye.room.door")) == []


def test_each_result_depends_on_the_libraries_it_uses() -> None:
    def libraries(module: str) -> set[str]:
        reached = code_hash.reachable_modules(module)
        return set(code_hash.libraries_of(name for name in reached if not code_hash.is_carrier(name)))

    learned = {"diffusers", "transformers", "safetensors"}
    assert learned | {"scipy"} <= libraries("secondeye.stages.evaluate")
    assert learned <= libraries("secondeye.conversion.convert")
    for stage in ("split", "shift", "match", "splat", "quality", "filter", "synthetic"):
        assert not learned & libraries(f"secondeye.stages.{stage}"), "an upgrade rebuilds no dataset"
