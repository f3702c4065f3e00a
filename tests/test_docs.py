"""The documentation names only what exists, and docs/metrics.md defines every score."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from secondeye.cli import app
from secondeye.evaluation.columns import COLUMNS

PROJECT = Path(__file__).parent.parent
PAGES = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += [*sorted((PROJECT / "docs").glob("*.md")), PROJECT / "src/secondeye/shipped/MODEL_CARD.md"]
CURRENT_PAGES = [page for page in PAGES if page.name != "CHANGELOG.md"]  # it also names what is gone
METRICS = (PROJECT / "docs" / "metrics.md").read_text()

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
each_current_page = pytest.mark.parametrize("page", CURRENT_PAGES, ids=lambda page: page.name)


@each_page
def test_relative_links_exist(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@each_current_page
def test_named_files_exist(page: Path) -> None:
    pattern = r"(?<![\w./])((?:src|tests|docs|benchmarks|examples|flows|presets)/[\w./]*\w)"
    paths = set(re.findall(pattern, page.read_text())) - {"src/secondeye/stages/NAME.py"}
    missing = [path for path in paths if "NAME" not in path and not (PROJECT / path).exists()]
    assert missing == []


@each_current_page
def test_named_modules_exist(page: Path) -> None:
    names = set(re.findall(r"(?:from|import) (secondeye[\w.]*)", page.read_text()))
    paths = [PROJECT / "src" / name.replace(".", "/") for name in names]
    assert [path for path in paths if not (path.is_dir() or path.with_suffix(".py").exists())] == []


@each_current_page
def test_named_commands_exist(page: Path) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for words in re.findall(r"(?<=[`\s])secondeye ([a-z][\w-]*(?: [a-z-]+)?)", _code(page.read_text())):
        name, *rest = words.split()
        assert name in commands, f"secondeye {words}"
        if hasattr(commands[name], "commands") and rest:
            assert rest[0] in commands[name].commands, f"secondeye {words}"


BENCHMARKS = sorted((PROJECT / "benchmarks").glob("*.py"))  # their docstrings say how they are called


@pytest.mark.parametrize("page", [*CURRENT_PAGES, *BENCHMARKS], ids=lambda page: page.name)
def test_named_options_of_benchmarks_exist(page: Path) -> None:
    for name, arguments in re.findall(r"python benchmarks/(\w+)\.py([^`\n#]*)", page.read_text()):
        source = (PROJECT / "benchmarks" / f"{name}.py").read_text()
        options = re.findall(r"--[a-z][\w-]*", arguments)
        assert [option for option in options if f'"{option}"' not in source] == [], name


@each_current_page
def test_named_params_exist(page: Path) -> None:
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    names = re.findall(rf"`((?:{'|'.join(params)})\.[\w.]+)`", page.read_text())
    for name in (name for name in names if not name.endswith((".parquet", ".md", ".html", ".json", ".png"))):
        value = params
        for key in name.split("."):
            assert isinstance(value, dict) and key in value, name
            value = value[key]


def _code(text: str) -> str:
    """Return code blocks and inline code of a Markdown page, comments of shell blocks excluded."""
    blocks = re.findall(r"```(?:sh)?\n(.*?)```", text, re.S)
    inline = re.findall(r"`[^`\n]+`", re.sub(r"```.*?```", "", text, flags=re.S))
    return "\n".join([*(re.sub(r"\s#.*", "", "\n" + block) for block in blocks), *inline])


@pytest.mark.parametrize("column", COLUMNS)
def test_every_score_is_defined(column: str) -> None:
    stem = re.sub(r"_(visible|disoccluded|border)(_db)?$", r"\2", column)
    headings = re.findall(r"^### (.*)$", METRICS, re.M)
    assert any(f"`{name}`" in heading for heading in headings for name in (column, stem)), column


def test_the_script_of_the_readme_finds_each_number_once() -> None:
    spec = importlib.util.spec_from_file_location("readme", PROJECT / "benchmarks" / "readme.py")
    assert spec and spec.loader
    readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readme)
    text = (PROJECT / "README.md").read_text()
    numbers = {name: re.findall(pattern, text)[0] for name, pattern in readme.PATTERNS.items()}
    assert readme.replace_numbers(text, numbers) == text
    assert "42 minutes" in readme.replace_numbers(text, numbers | {"minutes of the demo": "42"})
