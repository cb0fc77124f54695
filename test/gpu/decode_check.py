"""Checks and times the flow and the vocoder on a GPU, on a machine without pytest:

    python -m test.gpu.decode_check --out DIR
    python -m test.gpu.decode_check --device cpu --tiny --out DIR

Each part runs in a process of its own, so that one that breaks the GPU's context, or hangs, leaves the others alone.
Kernels that fail their check are replaced by their references in the later parts. Prints a table, writes
DIR/decode.json after each part.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from test.gpu.decode_parts import Bench
from test.gpu.decode_stream_parts import PARTS

LIMIT_S = 110.0
ORDER = ("kernels:2", "flow:2", "vocoder:2", "streams:2", "together:2", "flow:3", "streams:3", "vocoder:3")


def main() -> int:
    arguments = _arguments()
    if arguments.part is not None:
        return _child(arguments)
    out = Path(arguments.out)
    out.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": _machine(arguments.device), "argv": sys.argv[1:]}
    bad: set[str] = set(arguments.without)
    begin = time.monotonic()
    for part in arguments.parts:
        left = arguments.budget_s - (time.monotonic() - begin)
        report[part] = (
            _run(part, arguments, out, bad, min(LIMIT_S, left)) if left > 5 else {"skipped": "no time left"}
        )
        if part.startswith("kernels"):
            bad |= set(report[part].get("bad", []))
            report["replaced"] = sorted(bad)
        (out / "decode.json").write_text(json.dumps(report, indent=1) + "\n")
    report["seconds"] = round(time.monotonic() - begin, 1)
    (out / "decode.json").write_text(json.dumps(report, indent=1) + "\n")
    _print(report)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--tiny", action="store_true", help="small models, to see that the check itself works"
    )
    parser.add_argument(
        "--out", default="decode_check_out", help="folder for decode.json and the parts' logs"
    )
    parser.add_argument(
        "--parts", nargs="*", default=list(ORDER), choices=[f"{p}:{v}" for p in PARTS for v in (2, 3)]
    )
    parser.add_argument("--without", nargs="*", default=[], help="operations to run as their references")
    parser.add_argument("--budget_s", type=float, default=300.0, help="no part begins after so long")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    return parser.parse_args()


def _machine(device: str) -> dict[str, str]:
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"
    return {"device": name, "torch": torch.__version__, "python": sys.version.split()[0]}


def _run(
    part: str, arguments: argparse.Namespace, out: Path, bad: set[str], limit_s: float
) -> dict[str, Any]:
    name = part.replace(":", "")
    result, log = out / f"{name}.json", out / f"decode-{name}.log"
    command = [sys.executable, "-m", "test.gpu.decode_check", "--part", part, "--out", str(out)]
    command += [
        "--device",
        arguments.device,
        *(["--tiny"] if arguments.tiny else []),
        "--without",
        *sorted(bad),
    ]
    result.unlink(missing_ok=True)
    start = time.monotonic()
    with log.open("w") as lines:
        try:
            status = subprocess.run(
                command, stdout=lines, stderr=subprocess.STDOUT, timeout=limit_s
            ).returncode
        except subprocess.TimeoutExpired:
            status = -1
    figures: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {}
    if status != 0:
        figures["failed"] = f"status {status} after {time.monotonic() - start:.0f} s"
        figures["log"] = log.read_text(errors="replace")[-2500:]
    figures["seconds"] = round(time.monotonic() - start, 1)
    return figures


def _child(arguments: argparse.Namespace) -> int:
    part, version = arguments.part.split(":")
    torch.backends.cuda.matmul.allow_tf32 = False  # the oracles are float32
    torch.backends.cudnn.allow_tf32 = False
    path = Path(arguments.out) / f"{arguments.part.replace(':', '')}.json"
    bench = Bench(
        torch.device(arguments.device), int(version), arguments.tiny, frozenset(arguments.without), path=path
    )
    try:
        with torch.inference_mode():
            PARTS[part](bench)
    finally:
        bench.save()
    return 0


def _print(report: dict[str, Any]) -> None:
    print(report["machine"], f"replaced: {report.get('replaced')}", f"{report['seconds']} s")
    for part in ORDER:
        if part not in report:
            continue
        print(f"--- {part}")
        for name, value in report[part].items():
            lines = value if isinstance(value, list) and name.startswith("profile") else [value]
            print(f"  {name}: {lines[0] if lines else ''}")
            for line in lines[1:]:
                print(f"      {line}")


if __name__ == "__main__":
    sys.exit(main())
