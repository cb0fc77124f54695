"""Checks and times the language model's GPU path, on a machine without pytest:

    python -m test.gpu.llm_check --out DIR
    TRITON_INTERPRET=1 python -m test.gpu.llm_check --device cpu --tiny --out DIR

Each job runs in a process of its own, so that one that breaks the GPU's context, or hangs, leaves the others alone.
First all that is not timed, at once: kernels and whole steps against their references, and the compilation of what is
timed later. Kernels that fail are replaced by their references from then on. Prints a table, writes DIR/llm.json.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from light_tts.kernels.suite import KERNELS
from light_tts.llm.packed_weights import PackedWeights
from light_tts.models.speech_lm import SpeechLM
from test.gpu import llm_parts, llm_report, llm_tune
from test.gpu.llm_parts import Setting

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
PARTS = ("kernels", "equal", "warm", "tune", "steps", "engine")
WARMERS = 8

Note = Callable[[str, Callable[[], Any]], None]


def main() -> int:
    arguments = _arguments()
    if arguments.job is not None:
        _child(arguments)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        arguments.work = folder
        report = _check(arguments)
    llm_report.show(report)
    return 0


def _check(arguments: argparse.Namespace) -> dict[str, Any]:
    out, work = Path(arguments.out), Path(arguments.work)
    out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": _machine(arguments), "argv": sys.argv[1:], "jobs": {}}
    broken = set(arguments.without)

    def run(jobs: Iterable[str]) -> None:
        with ThreadPoolExecutor(16) as pool:
            chosen = [job for job in jobs if job.split(":")[0] in arguments.parts]
            results = pool.map(lambda job: _run_to_the_end(job, arguments, broken), chosen)
            report["jobs"].update(zip(chosen, results, strict=True))
        (out / "llm.json").write_text(json.dumps(report, indent=1) + "\n")
        logs = [f"== {log.stem}\n{log.read_text()[-20_000:]}\n" for log in sorted(work.glob("*.log"))]
        (out / "llm_jobs.log").write_text("".join(logs))

    on_gpu = arguments.device != "cpu"
    types = ("float16", "bfloat16") if on_gpu else ("float32",)
    equal = [f"equal:{name}" for name in (*types, f"{types[0]}+int8")]
    run(
        [f"kernels:{name}" for name in types]
        + equal
        + [f"warm:{index}" for index in range(WARMERS) if on_gpu]
    )
    broken |= llm_report.broken_kernels(report["jobs"])
    report["replaced"] = sorted(broken)
    if broken - set(arguments.without):
        run(equal)
    for job in ("tune", "steps", "engine"):
        run([job])
    if (work / "plans.json").exists():
        shutil.copy(work / "plans.json", out / "plans.json")
    return report


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument(
        "--tiny", action="store_true", help="a small model, to see that the check itself works"
    )
    parser.add_argument(
        "--out", default="llm_check_out", help="folder for llm.json, llm_jobs.log, plans.json"
    )
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument(
        "--without", nargs="*", default=[], choices=sorted(KERNELS), help="kernels to leave out"
    )
    parser.add_argument("--tune_s", type=float, default=20.0, help="seconds for the choice of tiles")
    parser.add_argument("--job_s", type=float, default=150.0, help="seconds that a job may take")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    return parser.parse_args()


def _machine(arguments: argparse.Namespace) -> dict[str, str]:
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
    return {
        "device": name,
        "torch": torch.__version__,
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _run_to_the_end(job: str, arguments: argparse.Namespace, broken: set[str]) -> dict[str, Any]:
    """Where a kernel has broken the GPU's context, those behind it are checked without it."""
    result = _run_job(job, arguments, broken)
    table = result.get("kernels", {}).get("table", {})
    while result.get("kernels", {}).get("lost"):
        broken = broken | {kernel for kernel, (_, _, text) in table.items() if text}
        result = _run_job(job, arguments, broken)
        if "table" not in result.get("kernels", {}):
            return result
        table = result["kernels"]["table"] = {**result["kernels"]["table"], **_failed(table)}
    return result


def _failed(table: dict[str, Any]) -> dict[str, Any]:
    return {kernel: row for kernel, row in table.items() if row[2]}


def _run_job(job: str, arguments: argparse.Namespace, broken: set[str]) -> dict[str, Any]:
    """What the job's process wrote, with "error" where it did not get to its end."""
    work = Path(arguments.work)
    target, log_path = work / f"{job}.json", work / f"{job}.log"
    target.unlink(missing_ok=True)
    command = [sys.executable, "-m", "test.gpu.llm_check", "--job", job, "--device", arguments.device]
    command += [
        "--work",
        str(work),
        "--tune_s",
        str(arguments.tune_s),
        "--job_s",
        str(arguments.job_s),
        "--without",
        *sorted(broken),
    ]
    command += ["--tiny"] if arguments.tiny else []
    begin_s, error = time.monotonic(), ""
    print(f"[llm_check] {job} ...", flush=True)
    with log_path.open("w") as log:
        try:
            code = subprocess.run(command, stdout=log, stderr=log, timeout=arguments.job_s).returncode
            error = f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            error = "took too long"
    result: dict[str, Any] = json.loads(target.read_text()) if target.exists() else {}
    result["took_s"] = round(time.monotonic() - begin_s, 1)
    if error:
        last = log_path.read_text().strip().splitlines()
        result["error"] = f"{error}: {last[-1][:300] if last else 'no output'}"
    return result


def _child(arguments: argparse.Namespace) -> None:
    faulthandler.dump_traceback_later(max(1.0, arguments.job_s - 5))  # where it hangs
    work = Path(arguments.work)
    device = torch.device(arguments.device)
    runs_triton = device.type != "cpu" or llm_tune.interpreted()
    setting = Setting(
        device, arguments.tiny, KERNELS - set(arguments.without) if runs_triton else frozenset()
    )
    result: dict[str, Any] = {}

    def note(name: str, run: Callable[[], Any]) -> None:
        """Written at once, so that what was measured outlives what comes next."""
        try:
            result[name] = run()
        except Exception as error:
            result[name] = {"error": f"{type(error).__name__}: {llm_parts.first_and_last(error)}"}
            sys.excepthook(*sys.exc_info())
        (work / f"{arguments.job}.json").write_text(json.dumps(result, indent=1))

    part, _, kind = arguments.job.partition(":")
    match part:
        case "kernels":
            note("kernels", lambda: llm_parts.kernels(setting, DTYPES[kind]))
        case "equal":
            name, _, int8 = kind.partition("+")
            note("equal", lambda: llm_parts.equality(setting, DTYPES[name], bool(int8)))
        case "warm":
            note("warm", lambda: llm_tune.warm(setting, int(kind), WARMERS))
        case "tune":
            (work / "plans.json").unlink(missing_ok=True)
            note("tune", lambda: llm_tune.tune(setting, work / "plans.json", arguments.tune_s))
        case "steps":
            _steps(setting, note, work)
        case "engine":
            _engine(setting, note, work)


def _steps(setting: Setting, note: Note, work: Path) -> None:
    """All plans in the first type, and the best one beside it: with 8-bit keys and values, and in bfloat16."""
    plans = llm_tune.plans(work / "plans.json", overlapping=setting.on_gpu)
    best = dict(list(plans.items())[-1:])
    sizes = (1, 8, 16, 32, 64, 100) if setting.on_gpu else (1, 3)
    name = "float16" if setting.on_gpu else "float32"
    runs = [(name, False, plans, sizes), (name, True, best, sizes)]
    if setting.on_gpu:
        runs.append(("bfloat16", False, best, (1, 64)))
    models: dict[str, tuple[SpeechLM, PackedWeights]] = {}
    for name, int8, chosen, rows_of in runs:
        if name not in models:
            model = llm_parts.random_model(setting, DTYPES[name])
            models[name] = model, PackedWeights.of(model, 1024)
        for plan_name, (plan, pdl) in chosen.items():
            for rows in rows_of:
                measure = llm_parts.timer(setting, *models[name], rows, int8=int8, pdl=pdl, plan=plan)
                note(f"{name}{', int8 KV' if int8 else ''} | {rows} | {plan_name}", measure)


def _engine(setting: Setting, note: Note, work: Path) -> None:
    name = "float16" if setting.on_gpu else "float32"
    plans = llm_tune.plans(work / "plans.json", overlapping=False)
    plan = list(plans.values())[-1][0]
    note(name, lambda: llm_parts.speed(setting, DTYPES[name], False, plan))
    note(f"{name}, int8 KV", lambda: llm_parts.speed(setting, DTYPES[name], True, plan))


if __name__ == "__main__":
    sys.exit(main())
