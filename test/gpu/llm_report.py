"""What the check of the language model's GPU path found, as a table."""

from __future__ import annotations

from typing import Any

from light_tts.kernels.suite import KERNELS

Jobs = dict[str, dict[str, Any]]


def broken_kernels(jobs: Jobs) -> set[str]:
    """Kernels with a failed case; all, where a process broke off before it could say which."""
    broken: set[str] = set()
    for job, result in jobs.items():
        if job.startswith("kernels:"):
            if "table" not in result.get("kernels", {}):
                return set(KERNELS)
            broken |= {kernel for kernel, (_, _, text) in result["kernels"]["table"].items() if text}
    return broken


def show(report: dict[str, Any]) -> None:
    jobs: Jobs = report["jobs"]
    print(
        f"\n== LLM on {report['machine']['device']}, torch {report['machine']['torch']}, {report['machine']['when']}"
    )
    for job, result in jobs.items():
        if "error" in result:
            print(f"{job}: FAIL {result['error']}")
        if job.startswith("kernels:") and "table" in result.get("kernels", {}):
            for kernel, (number, worst, text) in result["kernels"]["table"].items():
                state = f"FAIL {text}" if text else "ok"
                print(f"{job:16} {kernel:14} {number:3} cases, error/limit {worst:8.3f}  {state}")
        elif job != "steps":
            _show_job(job, result)
    if report.get("replaced"):
        print(f"replaced by references: {', '.join(report['replaced'])}")
    _show_steps({name: value for name, value in jobs.get("steps", {}).items() if "|" in name})
    print("seconds: " + ", ".join(f"{job} {result['took_s']:.0f}" for job, result in jobs.items()))


def _show_job(job: str, result: dict[str, Any]) -> None:
    for name, value in result.items():
        if name == "tune" and isinstance(value, dict):
            for key, text in value.items():
                print(f"tune  {key:18} {text}")
        elif name not in ("took_s", "error") and not (name == "warm" and not value.get("failed", True)):
            print(f"{job:22} {'' if job.partition(':')[0] == name else name} {_short(value)}")


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(one)}" for key, one in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show_steps(times: dict[str, Any]) -> None:
    """times: by "type | rows | plan", milliseconds or what went wrong"""
    table: dict[str, dict[str, dict[str, object]]] = {}
    for label, value in times.items():
        kind, rows, plan = label.split(" | ")
        table.setdefault(kind, {}).setdefault(plan, {})[rows] = value
    for kind, plans in table.items():
        sizes = list(next(iter(plans.values())))
        print(f"ms per step, {kind:18} rows: " + "".join(f"{size:>9}" for size in sizes))
        for plan, values in plans.items():
            cells = [values.get(size) for size in sizes]
            text = "".join(f"{cell:9.3f}" if isinstance(cell, float) else f"{'FAIL':>9}" for cell in cells)
            print(f"  {plan:32} {text}")
            if failed := next((cell for cell in cells if isinstance(cell, dict)), None):
                print(f"    {failed}")
