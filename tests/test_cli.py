"""The ``redream`` command: verbs, exit status, and what an error looks like."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import threestudio_redream
from threestudio_redream import cli
from threestudio_redream.doctor import Diagnosis, Finding
from threestudio_redream.doctor.machine import describe_machine
from threestudio_redream.errors import AssetError


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(words))
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, threestudio_redream.__version__ + "\n", "")


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert "doctor" in out
    assert "render" in out


@pytest.mark.parametrize("words", [("no-such-verb",), ("doctor", "--no-such-option")])
def test_a_wrong_command_line_is_status_2(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert "no-such" in err


@pytest.fixture
def failing_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise AssetError("The file holds no triangles", received="a.glb", fix="Export the mesh again.")

    monkeypatch.setattr("threestudio_redream.doctor.diagnose", fail)


@pytest.fixture
def broken_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise ModuleNotFoundError("No module named 'numba'", name="numba")

    monkeypatch.setattr("threestudio_redream.doctor.diagnose", fail)


@pytest.mark.usefixtures("failing_doctor")
def test_a_named_error_is_one_message_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "doctor")
    assert (status, out) == (1, "")
    assert err == "redream: The file holds no triangles (got 'a.glb'). Export the mesh again.\n"


@pytest.mark.usefixtures("failing_doctor")
def test_debug_shows_where_a_named_error_came_from() -> None:
    with pytest.raises(AssetError):
        cli.main(["--debug", "doctor"])


def test_interruption_is_status_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("threestudio_redream.doctor.diagnose", interrupt)
    assert run(capsys, "doctor")[0] == 130


def fixed_diagnosis(status: str) -> Diagnosis:
    return Diagnosis(describe_machine(), (Finding("numba", status, required=True, cure="install it"),), ())


@pytest.mark.parametrize(("found", "exit_status"), [("found", 0), ("missing", 1), ("broken", 1)])
def test_doctor_status_follows_the_verdict(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, found: str, exit_status: int
) -> None:
    monkeypatch.setattr("threestudio_redream.doctor.diagnose", lambda **_: fixed_diagnosis(found))
    status, out, _ = run(capsys, "doctor", "--json")
    report = json.loads(out)
    assert status == exit_status
    assert report["ok"] is (exit_status == 0)
    assert report["components"][0] == {
        "name": "numba",
        "status": found,
        "purpose": "",
        "required": True,
        "version": "",
        "detail": "",
        "error": "",
        "where": "",
        "cure": "install it",
        "licence": "",
        "facts": {},
    }


def test_doctor_shows_a_page_to_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threestudio_redream.doctor.diagnose", lambda **_: fixed_diagnosis("missing"))
    status, out, _ = run(capsys, "doctor")
    assert status == 1
    assert "numba: install it" in out


@pytest.mark.usefixtures("broken_doctor")
def test_a_package_that_does_not_import_points_to_the_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "doctor")
    assert (status, out) == (1, "")
    assert err == "redream: ModuleNotFoundError: No module named 'numba'. The cure: redream doctor\n"
    with pytest.raises(ModuleNotFoundError):
        cli.main(["--debug", "doctor"])


TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    path = tmp_path / "tetra.obj"
    path.write_text(TETRAHEDRON)
    return path


def test_render_writes_pictures_and_cameras(capsys: pytest.CaptureFixture[str], mesh: Path, tmp_path: Path) -> None:
    out = tmp_path / "views"
    status, line, _ = run(capsys, "render", str(mesh), "--out", str(out), "--views", "2", "--size", "24", "--masks")
    assert status == 0
    assert line.startswith(f"2 views of {mesh} (4 faces) in ")
    assert line.endswith(f": {out / 'sheet.png'}\n")
    written = {path.name for path in out.iterdir()}
    assert written == {
        "view_000.png", "view_001.png", "mask_000.png", "mask_001.png", "sheet.png", "cameras.json"
    }  # fmt: skip
    assert [view["azimuth_deg"] for view in json.loads((out / "cameras.json").read_text())["views"]] == [0.0, 180.0]


def test_render_passes_every_option_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, object] = {}

    def fake(file: Path, out: Path, **options: object) -> dict[str, object]:
        seen.update(options, file=file, out=out)
        return {"warnings": ["odd"], "files": ["view_000.png"]}

    monkeypatch.setattr("threestudio_redream.assets.render.render_to_folder", fake)
    words = (
        "render a.glb --out o --views 3 --size 64 --elevation -5 --fovy 50 --distance 2.5 --background 0.2,0.4,1 "
        "--shading world --up +z --front -y --masks --depths --normals --supersample 2 --backend numpy --json"
    )
    status, out, _ = run(capsys, *words.split())
    assert (status, json.loads(out)) == (0, {"warnings": ["odd"], "files": ["view_000.png"]})
    assert callable(seen.pop("progress"))
    assert seen == {
        "file": Path("a.glb"),
        "out": Path("o"),
        "views": 3,
        "size": 64,
        "elevation_deg": -5.0,
        "fovy_deg": 50.0,
        "distance": 2.5,
        "background": (0.2, 0.4, 1.0),
        "shading": "world",
        "up": "+z",
        "front": "-y",
        "masks": True,
        "depths": True,
        "normals": True,
        "supersample": 2,
        "backend": "numpy",
    }


@pytest.mark.parametrize(
    ("text", "colour"),
    [("none", None), ("White", (1.0, 1.0, 1.0)), ("0.25", (0.25,) * 3), ("0,0.5,1", (0.0, 0.5, 1.0))],
)
def test_backgrounds(text: str, colour: tuple[float, ...] | None) -> None:
    assert cli._parse_background(text) == colour


@pytest.mark.parametrize("text", ["blue-ish", "1,2", ""])
def test_a_background_that_is_no_colour_is_a_wrong_command_line(
    capsys: pytest.CaptureFixture[str], mesh: Path, text: str
) -> None:
    status, _, err = run(capsys, "render", str(mesh), "--out", "never", "--background", text)
    assert status == 2
    assert "is no colour" in err
    assert not Path("never").exists()


def test_render_shows_warnings_beside_the_result(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = {"views": 1, "files": ["view_000.png"], "sheet": None, "seconds": 0.5}
    report |= {"asset": {"faces": 4}, "warnings": ["texture 'a.png' is missing"]}
    monkeypatch.setattr("threestudio_redream.assets.render.render_to_folder", lambda *_, **__: report)
    status, out, err = run(capsys, "render", "a.glb", "--out", "o")
    assert (status, err) == (0, "redream: a.glb: texture 'a.png' is missing\n")
    assert out == f"1 view of a.glb (4 faces) in 0.5 s: {Path('o') / 'view_000.png'}\n"


def test_named_errors_of_render(capsys: pytest.CaptureFixture[str], mesh: Path, tmp_path: Path) -> None:
    assert run(capsys, "render", str(tmp_path / "absent.glb"), "--out", str(tmp_path))[0] == 1
    status, _, err = run(capsys, "render", str(mesh), "--out", str(tmp_path / "o"), "--views", "0")
    assert status == 1
    assert "got 0" in err
    assert not (tmp_path / "o").exists()


def test_the_command_starts_without_heavy_packages(tmp_path: Path) -> None:
    code = (
        "import sys, threestudio_redream.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numba', 'trimesh', 'skimage', 'scipy', 'pytorch_lightning', 'av', 'PIL'}\n"
        "sys.stderr.write('heavy: ' + ','.join(sorted(heavy & set(sys.modules))))\n"
    )
    root = str(Path(threestudio_redream.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env={"PYTHONPATH": root}
    )
    assert done.stderr == "heavy: "


def test_report_writes_a_page_or_says_why_not(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, out, err = run(capsys, "report", str(tmp_path))
    assert (status, out) == (1, "")
    assert "not the folder of a run" in err
    (tmp_path / "save").mkdir()
    assert run(capsys, "report", str(tmp_path)) == (0, f"{tmp_path / 'report.html'}\n", "")
    assert (tmp_path / "report.html").is_file()
