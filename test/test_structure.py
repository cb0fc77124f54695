"""The shape of the project: documents name what is there, files stay small, shared types stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from light_tts.quirks import ReferenceQuirks

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "light_tts"
STRUCTURE = ROOT / "docs/structure.md"
MAX_LINES = 400

# Never import torch, onnxruntime or transformers, not even indirectly. Some do not exist yet.
LIGHT_MODULES = [
    "light_tts.child",
    "light_tts.config",
    "light_tts.decode.scheduler",
    "light_tts.errors",
    "light_tts.flags",
    "light_tts.llm.bistream",
    "light_tts.llm.kv_pool",
    "light_tts.llm.scheduler",
    "light_tts.llm.sequence",
    "light_tts.messages",
    "light_tts.models.config",
    "light_tts.observe",
    "light_tts.quirks",
    "light_tts.server",
    "light_tts.transport",
]
HEAVY = {"torch", "onnxruntime", "transformers"}


def _sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _exists(module: str) -> bool:
    path = ROOT / module.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def _documented() -> dict[str, set[str]]:
    """Folder -> files that docs/structure.md lists below that folder's heading."""
    folders: dict[str, set[str]] = {}
    files: set[str] = set()
    for line in STRUCTURE.read_text("utf-8").splitlines():
        if line.startswith("#"):
            heading = re.match(r"#+ `(light_tts/[\w/]*)`", line)
            files = folders.setdefault(heading[1], set()) if heading else set()
        elif entry := re.match(r"- `(\w+\.py)`: \S", line):
            files.add(entry[1])
    return folders


def test_structure_names_every_folder_and_file_of_the_package_and_no_other() -> None:
    actual: dict[str, set[str]] = {}
    for source in _sources():
        files = actual.setdefault(f"{source.parent.relative_to(ROOT).as_posix()}/", set())
        if source.name != "__init__.py":
            files.add(source.name)
    documented = _documented()
    missing = {folder + name for folder in actual for name in actual[folder] - documented.get(folder, set())}
    missing |= actual.keys() - documented.keys()
    gone = {folder + name for folder in documented for name in documented[folder] - actual.get(folder, set())}
    gone |= documented.keys() - actual.keys()
    assert not missing, f"not in docs/structure.md: {sorted(missing)}"
    assert not gone, f"in docs/structure.md, but not there: {sorted(gone)}"


def test_structure_names_every_reference_quirk_and_no_other() -> None:
    section = STRUCTURE.read_text("utf-8").partition("## Reference quirks")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^- `(\w+)`: \S", section, flags=re.MULTILINE))
    assert listed == set(ReferenceQuirks.__dataclass_fields__)


@pytest.mark.parametrize(
    "document", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name
)
def test_relative_links_of_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
    broken = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert not broken


def test_both_readmes_show_the_same_commands() -> None:
    english, chinese = (
        re.findall(
            r"^(?:\./|light-tts |\.venv/).*?(?=\s*#|$)", (ROOT / name).read_text("utf-8"), flags=re.MULTILINE
        )
        for name in ("README.md", "README.zh.md")
    )
    assert english
    assert english == chinese


def test_no_source_file_is_longer_than_the_limit() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in _sources()}
    assert not {name: lines for name, lines in lengths.items() if lines >= MAX_LINES}


def test_only_the_command_line_prints() -> None:
    prints = []
    for source in _sources():
        if source.relative_to(PACKAGE).parts[0] in ("cli.py", "cli"):
            continue
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                prints.append(f"{source.relative_to(ROOT)}:{node.lineno}")
    assert not prints


def test_the_import_contract_holds_every_light_module_that_exists() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    forbidden = next(contract for contract in contracts if contract["type"] == "forbidden")
    assert set(forbidden["source_modules"]) == {module for module in LIGHT_MODULES if _exists(module)}
    assert set(forbidden["forbidden_modules"]) == HEAVY


# cli: `light-tts --help` should not wait for torch; light_tts: `import light_tts` is part of every import
@pytest.mark.parametrize("module", ["light_tts", "light_tts.cli", *filter(_exists, LIGHT_MODULES)])
def test_light_modules_load_no_inference_library(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_the_package_under_test_is_this_folder() -> None:
    spec = find_spec("light_tts")
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).parent == PACKAGE
