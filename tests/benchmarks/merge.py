"""A merge beside PEFT's, alone and as the whole build that a user waits for.

`make bench NAME=merge`: six minutes, most of them proof, and 6 GB of temporary disk. A random model in the shape of
Qwen2.5-0.5B (bf16) and random LoRAs of rank 16 on every linear layer. Alone: ours and the peer (transformers + PEFT
`merge_and_unload` + `save_pretrained`, bf16 on the CPU), from files to files, each in a fresh process, in turn; every
tensor of the two results is compared. The build: a real registry fetches, merges in a child, proves, hashes, stores
and registers; PEFT has nothing to put beside that, so its ratio is to the peer's whole process. Memory is the
high-water mark of each process itself, mapped files included. The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.benchmarks.merging import builds, measured
from tests.benchmarks.merging.model import compare, write_adapter, write_base
from tuneloom_registry.runner import CHILD_ENVIRONMENT

ROOT = Path(__file__).parents[2]
ROUNDS = 3
BUILDS = 2
Figures = dict[str, float]
COLUMNS = {"seconds": "s", "process_seconds": "s", "cpu_seconds": "s", "peak_memory_mib": "MiB"}


def main() -> None:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ.update({"HF_HUB_OFFLINE": "1", "PYTHONPATH": path})
    with tempfile.TemporaryDirectory(prefix="merge-benchmark-") as name:
        work = Path(name)
        write_base(work / "base")
        for seed in range(BUILDS):
            write_adapter(work / f"adapter-{seed}", seed=seed)
        runs: dict[str, list[Figures]] = {"ours": [], "peer": []}
        for _ in range(ROUNDS):
            for who, figures in runs.items():
                shutil.rmtree(work / who, ignore_errors=True)
                figures.append(alone(who, work))
                print(".", end="", flush=True)
        worst = compare(work / "base", work / "ours", work / "peer")
        built = asyncio.run(whole_builds(work))
    ours, peer, build = _medians(runs["ours"]), _medians(runs["peer"]), _medians(built)
    report(ours, peer, build, worst)


def alone(who: str, work: Path) -> Figures:
    """One merge in a process of its own."""
    figures = work / "alone.jsonl"
    module = "tests.benchmarks.merging.alone"
    done = subprocess.run(
        [sys.executable, "-P", measured.__file__, figures, module, who, work / "base", work / "adapter-0", work / who],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **CHILD_ENVIRONMENT},
    )
    return {**json.loads(done.stdout.splitlines()[-1]), **json.loads(figures.read_text().splitlines()[-1])}


async def whole_builds(work: Path) -> list[Figures]:
    """One registry, a new adapter each time: what is stored already would not be stored again."""
    found = []
    async with builds.registry(work) as registry:
        base = await builds.add_base(registry, "base", work / "base")
        for seed in range(BUILDS):
            adapter = await builds.add_adapter(registry, f"adapter-{seed}", work / f"adapter-{seed}", base)
            found.append(await builds.merge(registry, adapter))
            print(".", end="", flush=True)
    print()
    return found


def _medians(runs: list[Figures]) -> Figures:
    return {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}


def report(ours: Figures, peer: Figures, build: Figures, worst: float) -> None:
    print(f"{'medians':18}" + "".join(f"{name + ', ' + unit:>24}" for name, unit in COLUMNS.items()))
    rows = {"merge alone, ours": ours, "merge alone, PEFT": peer, "whole build, ours": build}
    for words, figures in rows.items():
        print(f"{words:18}" + "".join(f"{figures[name]:24.2f}" if name in figures else " " * 24 for name in COLUMNS))
    around = build["seconds"] - build["child_seconds"]
    print(f"of the build: child {build['child_seconds']:.2f} s, around it {around:.2f} s (hashing, storing, queue)")
    print(f"largest difference of two weights: {worst:.2g} (within bf16 rounding)")
    packages = ("numpy", "torch", "transformers", "peft", "safetensors")
    print(
        json.dumps(
            {
                "benchmark": "merge",
                "ours": {"merge": ours, "build": build},
                "peer": {"merge": peer},
                "ratio": {
                    "merge": {key: round(ours[key] / peer[key], 4) for key in peer},
                    "build": {
                        "seconds": round(build["seconds"] / peer["process_seconds"], 4),
                        "cpu_seconds": round(build["cpu_seconds"] / peer["cpu_seconds"], 4),
                        "peak_memory_mib": round(build["peak_memory_mib"] / peer["peak_memory_mib"], 4),
                    },
                },
                "max_abs_difference": worst,
                "versions": {
                    "python": platform.python_version(),
                    **{name: importlib.metadata.version(name) for name in packages},
                },
            }
        )
    )


if __name__ == "__main__":
    main()
