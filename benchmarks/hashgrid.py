"""Hash-grid encoding on the CPU: forward, and forward + backward to the table, against public implementations.

    python benchmarks/hashgrid.py [--peer-python PEERS/bin/python] [--taichi-nerfs DIR]

131,072 random points in 3-D, 16 levels of 2 features, resolutions 16 to 2048, tables of 2^15 and 2^19
rows, float32. Peers live in an environment of their own, made for example with:

    python -m venv peers
    peers/bin/pip install torch numpy drjit fast-ngp warp-lang taichi opencv-python-headless
    peers/bin/pip install --no-deps nerfstudio
    peers/bin/pip install viser rich jaxtyping nerfacc     # what nerfstudio's encodings import

(Dr.Jit also needs the shared library of LLVM, such as Debian's libllvm15.) What does not import is
listed with its reason. Every implementation runs in a process of its own; measurements go round robin
through all of them, so that a change of load on the machine meets everyone. Compilation and the first
call are not measured. Those with tiny-cuda-nn's semantics are checked against the reference.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from _common import ROOT, environment, peak_extra_mib, summary, time_calls, versions, write_results

SIZES = (15, 19)


def work(name: str, settings: dict[str, Any]) -> None:
    """Worker process: answer one JSON request a line (it runs in the environment of the implementation)."""
    from hashgrid_peers import IMPLEMENTATIONS, make_problem

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever an implementation prints must not mix with the answers
    kind = IMPLEMENTATIONS[name]
    built: dict[int, Any] = {}
    for line in sys.stdin:
        request = json.loads(line)
        size = request["size"]
        answer: dict[str, Any] = {}
        try:
            if request["do"] == "build":
                problem = make_problem(size, settings["points"], settings["threads"], settings["extras"])
                built[size] = kind(size, problem)
                answer["versions"] = versions(kind.PACKAGES)
                answer["peak_extra_mib"] = peak_extra_mib(built[size].step)
                answer.update(check(name, size, built[size], settings))
            else:
                call = getattr(built[size], request["do"])
                answer["times"] = time_calls(call, request["repeats"], warmup=1, budget_s=0.4)
        except Exception as error:  # a peer that fails is a result, with its reason
            answer["error"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def check(name: str, size: int, implementation: Any, settings: dict[str, Any]) -> dict[str, float]:
    """Relative L2 error of values and table gradient against the reference's, which its own worker stores."""
    import numpy as np

    values, gradient = implementation.outputs(), implementation.gradient()
    if values is None or gradient is None:
        return {}
    stored = Path(settings["folder"]) / f"reference{size}.npz"
    if name == "reference":
        np.savez(stored, values=values, gradient=gradient)
    expected = np.load(stored)
    found = {"values": values, "gradient": gradient}
    return {
        f"{key}_error": float(np.linalg.norm(found[key] - expected[key]) / np.linalg.norm(expected[key]))
        for key in found
    }


class Worker:
    """The parent's end of a worker process."""

    def __init__(self, name: str, python: str, settings: dict[str, Any]) -> None:
        threads = str(settings["threads"])
        env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'benchmarks'}"}
        env.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), threads))
        self.process = subprocess.Popen(
            [python, __file__, "--worker", name, json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env,
            start_new_session=True,
        )  # fmt: skip

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"error": f"the process ended with {self.process.wait()}"}


def compare(args: argparse.Namespace) -> dict[str, Any]:
    import tempfile

    from hashgrid_peers import IMPLEMENTATIONS

    with tempfile.TemporaryDirectory() as folder:
        extras = {"taichi_nerfs": str(args.taichi_nerfs.resolve())} if args.taichi_nerfs else {}
        settings = {"points": args.points, "threads": args.threads, "extras": extras, "folder": folder}
        names = ["reference", *(name for name in IMPLEMENTATIONS if name != "reference")]
        own = {"redream", "reference", "torch.compile"}
        results: dict[str, Any] = {}
        workers: dict[str, Worker] = {}
        for name in [name for name in names if not args.only or name in (*args.only, "reference")]:
            python = sys.executable if name in own else args.peer_python
            worker = workers[name] = Worker(name, python, settings)
            results[name] = {"what": IMPLEMENTATIONS[name].__doc__.strip(), "sizes": {}}
            for size in SIZES:
                answer = worker.ask(do="build", size=size)
                results[name]["versions"] = answer.pop("versions", results[name].get("versions"))
                results[name]["sizes"][size] = answer
        samples: dict[tuple[str, int, str], list[float]] = {}
        for _ in range(args.rounds):
            for size in SIZES:
                for name, worker in workers.items():
                    if "error" in results[name]["sizes"][size]:
                        continue
                    for do in ("forward", "step"):
                        answer = worker.ask(do=do, size=size, repeats=args.repeats)
                        samples.setdefault((name, size, do), []).extend(answer.get("times", []))
        for (name, size, do), times in samples.items():
            key = {"forward": "forward", "step": "forward_backward"}[do]
            results[name]["sizes"][size][key] = summary(times)
        for worker in workers.values():
            if worker.process.stdin is not None:
                worker.process.stdin.close()
            worker.process.wait()
    return results


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table, fastest first at the larger size."""
    lines = [
        "| implementation | versions | "
        + " | ".join(f"2^{size} fwd / fwd+bwd, ms (best); extra MiB; gradient error" for size in SIZES)
        + " |",
        "| --- | --- " + "| --- " * len(SIZES) + "|",
    ]

    def cell(entry: dict[str, Any]) -> str:
        if "error" in entry:
            return entry["error"]
        forward, step = entry["forward"], entry["forward_backward"]
        error = f"{entry['gradient_error']:.0e}" if "gradient_error" in entry else "own semantics"
        return (
            f"{forward['median_ms']} / {step['median_ms']} ({forward['best_ms']} / {step['best_ms']}); "
            f"{entry['peak_extra_mib']}; {error}"
        )

    def rank(item: tuple[str, Any]) -> float:
        return item[1]["sizes"][SIZES[-1]].get("forward_backward", {}).get("median_ms", float("inf"))

    for _, result in sorted(results.items(), key=rank):
        shown = ", ".join(f"{key} {value}" for key, value in (result.get("versions") or {}).items())
        cells = " | ".join(cell(result["sizes"][size]) for size in SIZES)
        lines.append(f"| {result['what']} | {shown} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=131_072)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=4, help="how often the measurements go round")
    parser.add_argument(
        "--repeats", type=int, default=7, help="most calls per implementation and round (fewer of slow ones)"
    )
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--taichi-nerfs", type=Path, help="a checkout of taichi-nerfs")
    parser.add_argument("--only", nargs="*", help="names of implementations")
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker[0], json.loads(args.worker[1]))
        return
    started = environment()
    results = compare(args)
    started["load_average_at_end"] = [round(load, 2) for load in os.getloadavg()]
    sys.stdout.write(table(results) + "\n")
    if not args.no_write:
        record = {
            "environment": started,
            "threads": args.threads,
            "problem": {
                "points": args.points,
                "levels": 16,
                "features": 2,
                "resolutions": [16, 2048],
                "dtype": "float32",
            },
            "method": f"wall clock; {args.rounds} rounds of up to {args.repeats} calls, each after one unmeasured call",
            "results": results,
        }
        path = write_results("hashgrid", record)
        sys.stdout.write(f"\nwritten to {path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
