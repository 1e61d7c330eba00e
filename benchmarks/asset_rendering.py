"""Asset rendering without a window: views per second at 64 and 512 px, against public renderers.

    python benchmarks/asset_rendering.py [--mesh FILE ...] [--peer-python PEERS/bin/python]

RGBA and depth of textured meshes as numpy arrays, unlit, from cameras around the object; loading and
textures are prepared before. Meshes: the sample that the package generates, and every ``--mesh``.
Peers live in an environment of their own, made for example with:

    python -m venv peers
    peers/bin/pip install . moderngl embreex pyrender pyvista mitsuba

pyrender, pyvista and moderngl also need EGL (Debian without a GPU: libegl1 libgl1-mesa-dri). What does
not import or start is listed with its reason. Every renderer runs in a process of its own; measurements
go round robin through all of them, so that a change of load on the machine meets everyone. Each image is
checked against ours: overlap of the masks, and depth where both see the object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _common import ROOT, environment, time_calls, versions, write_results

SIZES = (64, 512)
FOV_DEG = 40.0
REFERENCE = "ours numba, 1 sample"


def load(mesh: str) -> Any:
    from threestudio_redream.assets import load_asset, normalise
    from threestudio_redream.assets.sample import sample_asset

    return normalise(sample_asset() if mesh == "sample" else load_asset(mesh))


def cameras(count: int) -> np.ndarray:
    from threestudio_redream.cameras import orbit_c2w

    steps = np.arange(count)
    return orbit_c2w(360.0 * steps / count + 10.0, np.array([15.0, -10.0, 40.0, 5.0])[steps % 4], 1.6)


def work(name: str) -> None:
    """Worker process: answer one JSON request a line (it runs in the environment of the renderer)."""
    from asset_rendering_peers import RENDERERS

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a renderer prints must not mix with the answers
    kind: type[Any] = RENDERERS[name]
    renderer: Any = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            if request["do"] == "build":
                renderer = None
                renderer = kind(load(request["mesh"]))
                answer["versions"] = versions(kind.PACKAGES)
            elif request["do"] == "look":
                rgba, (depth, along) = renderer.render(cameras(8)[0], FOV_DEG, request["size"])
                np.savez(request["file"], rgba=rgba, depth=depth, along=along)
            else:
                views = cameras(request["views"])
                render_all = renderer.render_all
                answer["times"] = time_calls(lambda: render_all(views, FOV_DEG, request["size"]), 1, request["warmup"])  # noqa: B023
        except Exception as error:  # a peer that fails is a result, with its reason
            answer["error"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Worker:
    def __init__(self, name: str, python: str) -> None:
        self.name = name
        self.error: str | None = None
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [python, str(Path(__file__).resolve()), "--worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).resolve().parent,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request; after a failure the worker is only remembered with its reason."""
        if self.error is not None:
            return {}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": "the process died"}
        self.error = answer.get("error")
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def compare(one: Any, other: Any) -> dict[str, float]:
    """Overlap of two masks, and the median relative difference of ray distances where both see something."""
    scales = [255.0 if image["rgba"].dtype == np.uint8 else 1.0 for image in (one, other)]
    first, second = (image["rgba"][..., 3] > 0.5 * scale for image, scale in zip((one, other), scales, strict=True))
    height, width = first.shape
    focal = 0.5 * height / np.tan(0.5 * np.deg2rad(FOV_DEG))
    x, y = np.arange(width) + 0.5 - 0.5 * width, (np.arange(height) + 0.5 - 0.5 * height)[:, None]
    stretch = np.sqrt(1 + (x / focal) ** 2 + (y / focal) ** 2)
    distances = [image["depth"] * (stretch if str(image["along"]) == "z" else 1.0) for image in (one, other)]
    both = first & second & (distances[0] > 0)
    error = np.abs(distances[0] - distances[1])[both] / distances[0][both]
    colors = [image["rgba"][..., :3] / scale for image, scale in zip((one, other), scales, strict=True)]
    return {
        "mask_iou": round(float((first & second).sum() / max((first | second).sum(), 1)), 4),
        "median_depth_error": float(f"{np.median(error):.2g}") if both.any() else 1.0,
        "mean_color_error": round(float(np.abs(colors[0] - colors[1])[both].mean()), 4) if both.any() else 1.0,
    }


def measure(workers: list[Worker], mesh: str, rounds: int) -> dict[str, Any]:
    times: dict[tuple[str, int], list[float]] = {}
    agreement: dict[str, dict[str, float]] = {}
    packages: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for worker in workers:
            packages[worker.name] = worker.ask(do="build", mesh=mesh).get("versions", {})
            worker.ask(do="look", size=256, file=str(Path(folder) / f"{worker.name}.npz"))
        looks = {
            worker.name: dict(np.load(Path(folder) / f"{worker.name}.npz"))
            for worker in workers
            if worker.error is None
        }
    for name, look in looks.items():
        agreement[name] = compare(looks[REFERENCE], look)
    for size in SIZES:
        views = 16 if size == 64 else 8
        for turn in range(rounds):
            for worker in workers:
                answer = worker.ask(do="time", size=size, views=views, warmup=1 if turn == 0 else 0)
                for elapsed in answer.get("times", []):
                    times.setdefault((worker.name, size), []).append(elapsed / views)
    rows = []
    for worker in workers:
        row: dict[str, Any] = {"renderer": worker.name, "versions": packages[worker.name]}
        if worker.error is not None:
            row["error"] = worker.error
        else:
            row |= agreement[worker.name]
            for size in SIZES:
                found = times[worker.name, size]
                row[f"{size}px"] = {
                    "best_ms_per_view": round(min(found), 3),
                    "median_ms_per_view": round(float(np.median(found)), 3),
                    "views_per_second_best": round(1e3 / min(found), 1),
                    "rounds": len(found),
                }
        rows.append(row)
    asset = load(mesh)
    facts = {
        "name": asset.name,
        "faces": len(asset.faces),
        "materials": len(asset.materials),
        "textures": [list(m.texture.shape[:2]) for m in asset.materials if m.texture is not None],
    }
    return {"mesh": "sample" if mesh == "sample" else Path(mesh).name, **facts, "renderers": rows}


def main() -> None:
    from asset_rendering_peers import RENDERERS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", action="append", default=[], help="a mesh file beside the generated sample")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter of the environment with the peers")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each renderer, mesh and size")
    parser.add_argument("--only", action="append", choices=list(RENDERERS), help="renderers; default: all")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.worker)
        return
    names = [name for name in RENDERERS if not arguments.only or name in arguments.only or name == REFERENCE]
    results: list[dict[str, Any]] = []
    for mesh in ["sample", *(str(Path(mesh).resolve()) for mesh in arguments.mesh)]:
        workers = [
            Worker(name, sys.executable if name.startswith("ours numba") else arguments.peer_python) for name in names
        ]
        try:
            results.append(measure(workers, mesh, arguments.rounds))
        finally:
            for worker in workers:
                worker.close()
    path = write_results("asset_rendering", {"environment": environment(), "fov_deg": FOV_DEG, "meshes": results})
    sys.stdout.write(table(results) + f"\n{path}\n")


def table(results: list[dict[str, Any]]) -> str:
    lines = []
    for result in results:
        lines.append(f"\n{result['mesh']}: {result['faces']} faces, textures {result['textures']}")
        for row in result["renderers"]:
            if "error" in row:
                lines.append(f"  {row['renderer']:31} did not run: {row['error']}")
                continue
            text = f"  {row['renderer']:31}"
            for size in SIZES:
                timing = row[f"{size}px"]
                text += f" {size} px {timing['best_ms_per_view']:8.2f} ms {timing['views_per_second_best']:7.1f}/s "
            text += f" IoU {row['mask_iou']:.4f}  depth {row['median_depth_error']:.0e}"
            lines.append(f"{text}  colour {row['mean_color_error']:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
