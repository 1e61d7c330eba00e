"""The pages as a browser shows them: offline, in 3D, in both themes, on a laptop and on a phone.

Needs playwright (``pip install 'threestudio-redream[browser]'``) and a Chromium. ``REDREAM_SCREENSHOTS=folder`` keeps
the pictures that the documentation shows; ``REDREAM_REPORT_RUN=folder`` takes them of a run of yours.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from threestudio_redream.assets import sample_asset
from threestudio_redream.assets.glb_writer import encode_glb
from threestudio_redream.evaluation.bench.gallery import write_gallery
from threestudio_redream.evaluation.bench.suites import open_suite
from threestudio_redream.evaluation.bench.tables import write_results
from threestudio_redream.evaluation.report import write_report

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright: pip install 'threestudio-redream[browser]'"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")

WIDTHS = {"laptop": 1280, "phone": 390}
SOFTWARE_GL = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
TEAL = (38, 148, 156)  # the body of the sample asset


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE_GL)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser):
    """Opens a page from its file; afterwards nothing may have been fetched and nothing complained of."""
    pages, asked, said = [], [], []

    def open_page(path: Path, width: int = 1280, theme: str = "light"):
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce", has_touch=width < 500
        )
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(path.as_uri())
        for frame in page.frames[1:]:
            frame.wait_for_selector("body[data-ready]", timeout=60_000)
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert len([url for url in asked if url.startswith("file")]) == len(pages)
    assert not said


def filled(save: Path) -> None:
    """What a run leaves, with the sample asset as its result."""
    for folder, count in (("it6-test", 37), ("it6-overhead", 1), ("it6-export", 0)):
        (save / folder).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((32, 32, 3), 6 * i, np.uint8)).save(save / folder / f"{i}.png")
    (save / "it6-export" / "model.glb").write_bytes(encode_glb(sample_asset()))


@pytest.fixture
def report(tmp_path):
    if "REDREAM_REPORT_RUN" in os.environ:
        given = Path(os.environ["REDREAM_REPORT_RUN"])
        run = shutil.copytree(given, tmp_path / given.name)
    else:
        run = tmp_path / "run"
        filled(run / "save")
        (run / "save" / "retrieved").mkdir()
        rows = [{"name": "robot " * 12, "caption": "a robot", "licence": "CC0-1.0", "score_text": 0.9}] * 3
        text = json.dumps({"prompt": "a teal robot", "references": rows, "threshold": 0.5})
        (run / "save" / "retrieved" / "retrieved.json").write_text(text)
        (run / "csv_logs" / "version_0").mkdir(parents=True)
        log = "step,train/loss_vsd,train/front_000,train/front_180\n0,1.5,0.5,0.5\n9,0.5,0.9,0.1\n"
        (run / "csv_logs" / "version_0" / "metrics.csv").write_text(log)
        (run / "cmd.txt").write_text("python launch.py --config " + "very-long-words-" * 20)
    return write_report(run)


def keep(page, name: str) -> None:
    if folder := os.environ.get("REDREAM_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png")


def canvas_of(page) -> np.ndarray:
    """``[H, W, 3]`` uint8 of the 3D view as it is on the screen."""
    shot = page.locator("iframe.view3d").first.screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("device", list(WIDTHS))
def test_a_report_fits_the_screen_and_shows_the_mesh(opened, report, device, theme):
    page = opened(report, WIDTHS[device], theme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 21, 25)"}[theme]
    picture = canvas_of(page).astype(float)
    corner = picture[12, 12]
    assert (corner.mean() > 200) == (theme == "light")
    covered = (np.abs(picture - corner).max(-1) > 30).mean()
    assert 0.1 < covered < 0.8
    assert picture.std((0, 1)).max() > 20
    keep(page, f"report-{device}-{theme}")


def test_colours_of_the_mesh_are_those_of_its_texture(opened, report):
    if "REDREAM_REPORT_RUN" in os.environ:
        pytest.skip("of the sample asset alone")
    picture = canvas_of(opened(report)).astype(float)
    ratio = picture / np.maximum(picture.sum(-1, keepdims=True), 1)
    wanted = np.array(TEAL) / sum(TEAL)
    assert (np.abs(ratio - wanted).max(-1) < 0.03).mean() > 0.02


def test_the_mesh_is_turned_by_keys_and_by_dragging(opened, report):
    page = opened(report)
    frame = page.frames[1]

    def azimuth() -> float:
        return float(frame.locator("body").get_attribute("data-azimuth"))

    start, before = azimuth(), canvas_of(page)
    page.locator("iframe.view3d").focus()
    frame.locator("canvas").focus()
    page.keyboard.press("ArrowRight")
    assert azimuth() == pytest.approx(start + 0.15, abs=2e-3)
    turned = np.abs(canvas_of(page).astype(float) - before).mean()
    page.keyboard.press("0")
    assert azimuth() == pytest.approx(start, abs=2e-3)
    assert turned > 2 * np.abs(canvas_of(page).astype(float) - before).mean()  # not 0: there is a focus ring now
    box = page.locator("iframe.view3d").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 100, steps=4)
    page.mouse.up()
    assert azimuth() == pytest.approx(start - 0.8, abs=0.05)
    assert "Arrow keys turn" in frame.locator("canvas").get_attribute("aria-label")


def test_everything_has_a_name_for_those_who_do_not_see_it(opened, report):
    page = opened(report)
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator("svg:not([aria-label])").count() == 0
    assert page.locator("iframe:not([title])").count() == 0
    assert page.locator("h1").count() == 1
    assert page.locator("main").count() == 1


@pytest.mark.parametrize("device", list(WIDTHS))
def test_one_slider_turns_the_gallery(opened, tmp_path, device):
    rows = []
    for method in ("prolificdreamer", "redream"):
        row = {"name": "a-robot-0", "method": method, "prompt": "a robot", "seed": 0, "status": "ok"}
        rows.append(row | {"metrics": {"clip_score[mini]": 0.5}})
        filled(tmp_path / method / "a-robot-0" / "save")
    suite = open_suite("mini")

    def folder(row):
        return tmp_path / row["method"] / row["name"]

    table = write_results(tmp_path / "results", suite, rows, {}, folder)
    path = write_gallery(tmp_path / "gallery.html", suite, rows, table, folder)
    page = opened(path, WIDTHS[device])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    cell = page.locator(".sides span").first

    def shade() -> float:
        return float(np.asarray(Image.open(io.BytesIO(cell.screenshot())).convert("L"), float)[4:-4, 4:-4].mean())

    assert shade() == pytest.approx(0, abs=4)
    page.locator("#turn").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    assert page.locator("output").inner_text() == "120°"
    assert shade() == pytest.approx(6 * 12, abs=4)
    assert len(page.frames) == 3
    assert canvas_of(page).std() > 10
