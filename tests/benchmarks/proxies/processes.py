"""The processes of the gateway benchmark: each proxy on the same core, the other side and the client on another."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.proxies.load import KEY, MODEL

ROOT = Path(__file__).parents[3]
ENGINE_PORT, REGISTRY_PORT = 18431, 18432
ENGINE_URL = f"http://127.0.0.1:{ENGINE_PORT}"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuneloom" / "benchmarks"
PINNED = Path(__file__).with_name("litellm.txt")
START_SECONDS = 90
# One worker, no logging, no callbacks, no retries, no database; a key, as ours has one.
LITELLM_CONFIG = f"""
model_list:
  - model_name: {MODEL}
    litellm_params: {{model: openai/{MODEL}, api_base: "{ENGINE_URL}/v1", api_key: none}}
litellm_settings: {{set_verbose: false, callbacks: [], num_retries: 0, telemetry: false, cache: false}}
router_settings: {{num_retries: 0, disable_cooldowns: true}}
general_settings: {{master_key: {KEY}, disable_spend_logs: true, disable_error_logs: true}}
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    name: str
    port: int
    command: list[str]
    ready: str
    environment: Mapping[str, str] = field(default_factory=dict)


def ours() -> Proxy:
    return Proxy(
        "ours",
        18433,
        [sys.executable, "-m", "tuneloom_gateway"],
        "/readyz",
        {
            "TUNELOOM_GATEWAY_PORT": "18433",
            "TUNELOOM_GATEWAY_REGISTRY_ADDRESS": f"127.0.0.1:{REGISTRY_PORT}",
            "TUNELOOM_GATEWAY_ENGINE_URL": ENGINE_URL,
            "TUNELOOM_GATEWAY_API_KEY_SHA256S": hashlib.sha256(KEY.encode()).hexdigest(),
        },
    )


def bare() -> Proxy:
    return Proxy("bare", 18434, [sys.executable, "-m", "tests.benchmarks.proxies.bare", "18434", ENGINE_URL], "/readyz")


def litellm() -> Proxy:
    """Installed once, pinned, into an environment of its own."""
    directory = CACHE / f"litellm-{hashlib.sha256(PINNED.read_bytes()).hexdigest()[:12]}"
    if not (directory / "installed").exists():
        print(f"installing LiteLLM into {directory}", flush=True)
        venv.create(directory, with_pip=True, clear=True)
        pip = [directory / "bin/python", "-m", "pip", "install", "-q", "--only-binary", ":all:", "--no-deps"]
        subprocess.run([*pip, "-r", PINNED], check=True)
        (directory / "installed").touch()
    config = directory / "config.yaml"
    config.write_text(LITELLM_CONFIG)
    options = ["--config", str(config), "--host", "127.0.0.1", "--port", "18435", "--num_workers", "1"]
    return Proxy(
        "litellm",
        18435,
        [str(directory / "bin/litellm"), *options],
        "/health/liveliness",
        {
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "NO_DOCS": "True",
        },
    )


@contextmanager
def running(proxies: list[Proxy], *, proxy_core: int, other_core: int, logs: Path) -> Iterator[dict[str, int]]:
    """Starts everything and yields each proxy's process id, by name; affinity is inherited."""
    upstream = ["-m", "tests.benchmarks.proxies.upstream", str(ENGINE_PORT), str(REGISTRY_PORT)]
    started = [_start([sys.executable, *upstream], other_core, {}, logs / "upstream.log")]
    try:
        pids = {}
        for proxy in proxies:
            started.append(_start(proxy.command, proxy_core, proxy.environment, logs / f"{proxy.name}.log"))
            pids[proxy.name] = started[-1].pid
        for proxy, process in zip(proxies, started[1:], strict=True):
            _wait(proxy, process, logs / f"{proxy.name}.log")
        os.sched_setaffinity(0, {other_core})
        yield pids
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def _start(command: list[str], core: int, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    os.sched_setaffinity(0, {core})
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("wb") as output:
        return subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": path, **environment}, stdout=output, stderr=output, cwd=log.parent
        )


def _wait(proxy: Proxy, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{proxy.port}{proxy.ready}", timeout=2).close()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{proxy.name} did not start: {error}\n{log.read_text()[-2000:]}") from None
            time.sleep(0.2)


def cpu_seconds(pid: int) -> float:
    """Processor time so far, to a hundredth of a second: phases must take much longer."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024
