"""What the gateway adds to a request, beside a bare FastAPI proxy and LiteLLM.

`make bench NAME=gateway`: a minute, loopback only (LiteLLM is installed once, 740 MB, into a cache of its own).
A fake engine answers at once. It is asked directly, through the gateway, through the least a Python proxy can do
(FastAPI and aiohttp, bytes passed through) and through LiteLLM at its best settings, in turn, round after round. The
proxies share one core, only one of them is asked at a time; client and engine have another core. Wall time suffers
from whatever else the machine does, processor time per request hardly. The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.proxies import load, processes

ROUNDS = 3
Figures = dict[str, float]
ROWS = {
    "sequential_p50_ms": "one after the other, p50",
    "sequential_p95_ms": "one after the other, p95",
    "added_p50_ms": "added to the engine's answer, p50",
    "requests_per_second": f"requests/s, {load.CLIENTS} clients, one core",
    "cpu_ms_per_request": "CPU per request, ms",
    "stream_p50_ms": f"stream of {load.CHUNKS} chunks, p50",
    "cpu_us_per_chunk": "CPU per chunk, microseconds",
    "resident_mb": "resident after start, MB",
}


async def measure(port: int, pid: int | None) -> Figures:
    """One round; without a process id the engine itself is asked."""

    def used() -> float:
        return processes.cpu_seconds(pid) if pid else 0.0

    sequential = await load.one_after_the_other(port, stream=False)
    before = used()
    requests, seconds = await load.together(port)
    between = used()
    streams = await load.one_after_the_other(port, stream=True)
    chunks = (len(streams) + load.WARM_UP) * load.CHUNKS
    p50, p95 = load.p50_and_p95(sequential)
    figures = {
        "sequential_p50_ms": p50,
        "sequential_p95_ms": p95,
        "requests_per_second": requests / seconds,
        "stream_p50_ms": statistics.median(streams),
    }
    if pid:
        figures["cpu_ms_per_request"] = 1e3 * (between - before) / requests
        figures["cpu_us_per_chunk"] = 1e6 * (used() - between) / chunks
    return figures


async def rounds(ports: dict[str, int], pids: dict[str, int]) -> dict[str, Figures]:
    """Medians over alternating rounds."""
    found: dict[str, list[Figures]] = {name: [] for name in ports}
    for _ in range(ROUNDS):
        for name, port in ports.items():
            found[name].append(await measure(port, pids.get(name)))
            print(".", end="", flush=True)
    print()
    return {name: {key: statistics.median(r[key] for r in each) for key in each[0]} for name, each in found.items()}


def main() -> None:
    cores = sorted(os.sched_getaffinity(0))
    proxies = [processes.ours(), processes.bare(), processes.litellm()]
    ports = {"direct": processes.ENGINE_PORT, **{proxy.name: proxy.port for proxy in proxies}}
    with (
        tempfile.TemporaryDirectory(prefix="gateway-benchmark-") as logs,
        processes.running(proxies, proxy_core=cores[-1], other_core=cores[0], logs=Path(logs)) as pids,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        resident = {name: processes.resident_mb(pid) for name, pid in pids.items()}
        medians = runner.run(rounds(ports, pids))
    for name, megabytes in resident.items():
        medians[name]["resident_mb"] = megabytes
        medians[name]["added_p50_ms"] = medians[name]["sequential_p50_ms"] - medians["direct"]["sequential_p50_ms"]
    report(medians)


def report(medians: dict[str, Figures]) -> None:
    print(f"{'medians of ' + str(ROUNDS) + ' rounds':36}" + "".join(f"{name:>12}" for name in medians))
    for key, words in ROWS.items():
        cells = (f"{figures[key]:12.3f}" if key in figures else " " * 12 for figures in medians.values())
        print(f"{words:36}" + "".join(cells))
    ours = medians.pop("ours")
    packages = ("fastapi", "uvicorn", "aiohttp", "uvloop")
    pinned = dict(line.split("==") for line in processes.PINNED.read_text().splitlines() if "==" in line[:60])
    print(
        json.dumps(
            {
                "benchmark": "gateway",
                "ours": _rounded(ours),
                "peer": {name: _rounded(figures) for name, figures in medians.items()},
                "ratio": {
                    name: _rounded({key: ours[key] / value for key, value in figures.items()})
                    for name, figures in medians.items()
                },
                "versions": {
                    "python": platform.python_version(),
                    "litellm": pinned["litellm"],
                    **{name: importlib.metadata.version(name) for name in packages},
                },
            }
        )
    )


def _rounded(figures: Figures) -> Figures:
    return {key: round(value, 4) for key, value in figures.items()}


if __name__ == "__main__":
    main()
