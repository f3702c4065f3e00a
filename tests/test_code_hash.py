from pathlib import Path

import pytest

from secondeye.execution import code_hash


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a small package that stands in for secondeye."""
    (tmp_path / "sub").mkdir()
    texts = {
        "__init__.py": '"""Top."""\n',
        "sub/__init__.py": "",
        "sub/entry.py": "def run():\n    from secondeye.sub import lazy\n    return lazy.VALUE\n",
        "sub/lazy.py": '"""Lazy."""\nVALUE = 1  # a comment\n',
        "other.py": "import os\n",
        "measure.py": "import numpy as np\ndef run():\n    from scipy.stats import t\n    import tqdm\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(code_hash, "ROOT", tmp_path)
    code_hash._parse.cache_clear()
    yield tmp_path
    code_hash._parse.cache_clear()


def test_reachable_modules_include_lazy_imports_and_parent_packages(package: Path) -> None:
    expected = {"secondeye", "secondeye.sub", "secondeye.sub.entry", "secondeye.sub.lazy"}
    assert code_hash.reachable_modules("secondeye.sub.entry") == expected


def test_hash_ignores_comments_and_docstrings(package: Path) -> None:
    modules = code_hash.reachable_modules("secondeye.sub.entry")
    before = code_hash.code_hash(modules)
    for text, equal in (('"""Other words."""\n\nVALUE = 1\n', True), ("VALUE = 2\n", False)):
        (package / "sub/lazy.py").write_text(text)
        code_hash._parse.cache_clear()  # as in another process
        assert (code_hash.code_hash(modules) == before) == equal


def test_libraries_include_only_those_that_affect_results(package: Path) -> None:
    assert code_hash.libraries_of(code_hash.reachable_modules("secondeye.measure")) == ["numpy", "scipy"]
    assert code_hash.libraries_of(code_hash.reachable_modules("secondeye.sub.entry")) == []


def test_stages_depend_only_on_libraries_they_import() -> None:
    def libraries(module: str) -> set[str]:
        modules = code_hash.reachable_modules(module)
        return set(code_hash.libraries_of(name for name in modules if not code_hash.is_carrier(name)))

    learned = {"diffusers", "transformers", "safetensors"}
    assert learned | {"scipy"} <= libraries("secondeye.stages.evaluate")
    assert learned <= libraries("secondeye.conversion.convert")
    for stage in ("split", "shift", "match", "splat", "quality", "filter", "synthetic"):
        assert not learned & libraries(f"secondeye.stages.{stage}"), (
            "upgrading a model library must not rebuild the dataset"
        )
