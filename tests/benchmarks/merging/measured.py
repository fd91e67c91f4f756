"""Runs a module as this very process and writes down what it took: `python -P measured.py FILE MODULE ARGUMENTS...`.

The high-water mark is read from /proc: unlike `ru_maxrss` it starts anew at exec, so nothing of the parent is in it.
One JSON line is appended to FILE: wall and CPU seconds of the process, and its largest resident set in MiB.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from pathlib import Path


def main() -> None:
    began = time.perf_counter()
    out, module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        used = os.times()
        figures = {
            "process_seconds": round(time.perf_counter() - began, 3),
            "cpu_seconds": round(used.user + used.system, 3),
            "peak_memory_mib": round(high_water_mib(), 1),
        }
        with Path(out).open("a") as output:
            output.write(json.dumps(figures) + "\n")


def high_water_mib(pid: int | str = "self") -> float:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
