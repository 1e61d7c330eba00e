"""Metadata, extras, workflows and the tree itself: what a release or a fresh clone depends on."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

import threestudio_redream
from threestudio_redream.doctor import PROBES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "threestudio_redream"
TOML = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = TOML["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAX_FILE = 5 * 2**20
WEIGHTS = PACKAGE / "mini"
MAX_WEIGHTS = 40 * 2**20  # of all models together


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(requirement: str) -> str:
    return canonical(re.match(r"[A-Za-z0-9._-]+", requirement).group())


@cache
def package_sources() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tracked_files() -> tuple[Path, ...]:
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = (ROOT / name.decode() for name in listing.split(b"\0") if name)
    return tuple(path for path in paths if path.is_file())


# --- metadata ---------------------------------------------------------------------------------------


def test_dependencies_have_floors_and_no_upper_bounds() -> None:
    for requirement in PROJECT["dependencies"]:
        assert re.fullmatch(r"[A-Za-z0-9_-]+>=[0-9.]+", requirement), requirement


def test_the_base_leaves_out_what_breaks_or_needs_a_compiler() -> None:
    names = {requirement_name(requirement) for requirement in PROJECT["dependencies"]}
    assert not names & {"torchvision", "torchaudio", "open-clip-torch", "lpips", "tinycudann", "nerfacc", "nvdiffrast"}


def test_the_doctor_knows_every_base_dependency_by_the_same_floor() -> None:
    def key(requirement: str) -> tuple[str, str]:
        return requirement_name(requirement), requirement.partition(">=")[2]

    assert {key(probe.requirement) for probe in PROBES if probe.required} == set(map(key, PROJECT["dependencies"]))


def test_the_constraints_pin_every_dependency_exactly_and_meet_its_floor() -> None:
    lines = (ROOT / "requirements" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    assert all(re.match(r"[a-z0-9-]+==[^\s;=]+(; python_version (>=|<) \"3\.11\")?$", line) for line in lines)
    pinned = {requirement_name(line) for line in lines}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    unpinned = {requirement_name(requirement) for requirement in wanted} - pinned
    assert unpinned <= {"torch", "tomli"}  # torch: torch-cpu.txt; tomli: Python 3.10 only
    assert not pinned & {"torch", "torchvision"}


def test_the_lowest_versions_are_the_floors() -> None:
    lines = (ROOT / "requirements" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert pins == [requirement.replace(">=", "==") for requirement in PROJECT["dependencies"]]


def missing_extra_calls() -> list[tuple[str, str, str]]:
    """Every package that an error message finds missing, the extra it recommends, and the place of the call."""
    found = []
    for path, tree in package_sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MissingExtraError":
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                named = {word.arg: word.value for word in node.keywords}
                given = [*node.args, *(named[name] for name in ("package", "extra")[len(node.args) :])][:2]
                assert all(isinstance(value, ast.Constant) for value in given), f"{place}: write the names as literals"
                found.append((*(str(value.value) for value in given), place))
    return found


def test_every_extra_that_a_message_recommends_exists_and_brings_the_package() -> None:
    extras = {
        name: {requirement_name(requirement) for requirement in requirements}
        for name, requirements in PROJECT["optional-dependencies"].items()
    }
    distribution = {probe.module: canonical(probe.name) for probe in PROBES}
    wrong = [
        f"{place}: '{package}' by the extra '{extra}'"
        for package, extra, place in missing_extra_calls()
        if distribution.get(package, canonical(package)) not in extras.get(extra, set())
    ]
    assert not wrong


def test_the_licence_is_whole_and_shipped() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE"]


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == threestudio_redream.__version__
    assert citation["license"] == PROJECT["license"]
    assert "version" in PROJECT["dynamic"]


def test_the_package_is_typed_and_every_folder_of_it_is_a_package() -> None:
    assert (PACKAGE / "py.typed").exists()
    folders = {path.parent for path in package_sources()}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


# --- import -----------------------------------------------------------------------------------------

IMPORT_WITH_NUMPY_ONLY = """
import importlib.abc, sys
allowed = {"numpy", "threestudio_redream"}

class OnlyNumpy(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)

sys.meta_path.insert(0, OnlyNumpy())
import threestudio_redream, threestudio_redream.assets, threestudio_redream.doctor
heavy = {"torch", "numba", "trimesh", "scipy", "PIL", "skimage", "pytorch_lightning", "omegaconf", "av"}
sys.exit(", ".join(sorted(heavy & set(sys.modules))) or 0)
"""


def test_numpy_is_enough_to_import_the_package(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_WITH_NUMPY_ONLY],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_no_module_of_the_package_is_longer_than_500_lines() -> None:
    lengths = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in package_sources()}
    assert not {path: length for path, length in lengths.items() if length > 500}


def test_pickled_arrays_are_never_loaded() -> None:
    """numpy.load cannot be banned as a whole, so its one dangerous option is."""
    for path, tree in package_sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), f"{path}:{node.value.lineno}"
                assert node.value.value is False, f"{path}:{node.value.lineno}"


# --- workflows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_pinned_and_have_least_permissions(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    assert "concurrency" in workflow
    for name, job in workflow["jobs"].items():
        assert job["permissions"] == {"contents": "read"}, name
        assert job["timeout-minutes"] <= 30, name
        for step in job["steps"]:
            if str(step.get("uses", "")).startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False, name
    for action in re.findall(r"uses:\s*(.+)", text):
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_the_matrix_tests_every_python_of_the_metadata() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    classifiers = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == classifiers
    assert PROJECT["requires-python"] == f">={classifiers[0]}"


def test_ci_runs_the_commands_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r"^make setup\nmake lint\nmake docs\nmake test\n\Z", script, re.MULTILINE)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


# --- tree -------------------------------------------------------------------------------------------


def test_the_sdist_is_the_repository() -> None:
    """Tests that travel with it read what is beside them."""
    lines = [line.split() for line in (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()]
    named = {name for words in lines if words[0] in ("graft", "include") for name in words[1:]}
    taken_anyway = {"README.md", "pyproject.toml", "setup.py", "MANIFEST.in", "threestudio_redream"}
    for_git_alone = {".gitignore", ".pre-commit-config.yaml"}
    top = {path.relative_to(ROOT).parts[0] for path in tracked_files()}
    assert top - taken_anyway - for_git_alone == named


def test_no_large_file_is_in_the_tree() -> None:
    sizes = {path: path.stat().st_size for path in tracked_files()}
    weights = {path for path in sizes if WEIGHTS in path.parents and path.suffix == ".safetensors"}
    assert not {
        str(path.relative_to(ROOT)): size for path, size in sizes.items() if path not in weights and size > MAX_FILE
    }
    assert sum(sizes[path] for path in weights) <= MAX_WEIGHTS


def test_every_data_file_of_the_package_is_shipped_and_none_can_run_code() -> None:
    shipped = TOML["tool"]["setuptools"]["package-data"]
    suffixes = {pattern.removeprefix("**/*") for pattern in shipped["threestudio_redream.mini"]}
    assert suffixes == {".json", ".md", ".safetensors", ".txt"}
    assert shipped["threestudio_redream.evaluation.bench"] == ["prompts/*.json", "static/*.js"]
    assert shipped["threestudio_redream.evaluation.report"] == ["static/*.css", "static/*.js"]
    data = {
        str(path.relative_to(PACKAGE)) for path in tracked_files() if PACKAGE in path.parents and path.suffix != ".py"
    }
    assert {path for path in data if not path.startswith("mini/")} == {
        "py.typed",
        "evaluation/bench/prompts/mini.json",
        "evaluation/bench/prompts/paper.json",
        "evaluation/bench/static/gallery.js",
        "evaluation/report/static/page.css",
        "evaluation/report/static/view3d.js",
    }
    assert not {path for path in data if path.startswith("mini/") and Path(path).suffix not in suffixes}


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    homes = re.compile(rb"/(home|Users)/[A-Za-z]\w+/|/root/|/work/|[A-Z]:\\+Users\\+")
    found = []
    for path in tracked_files():
        data = path.read_bytes()
        if path != Path(__file__) and b"\0" not in data[:4096] and (match := homes.search(data)):
            found.append(f"{path.relative_to(ROOT)}: {match.group().decode()}")
    assert not found
