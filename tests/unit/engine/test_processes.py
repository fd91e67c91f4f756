"""What must hold across process borders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tuneloom_common.children import PARENT_VARIABLE

HEAVY = ("torch", "transformers", "vllm", "numpy")


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_host_and_the_plugin_import_no_machine_learning() -> None:
    code = f"import sys, tuneloom_engine.__main__, tuneloom_engine.inside.resolver; print({HEAVY} & sys.modules.keys())"
    result = python(code.replace(str(HEAVY), str(set(HEAVY))))
    assert result.stdout.strip() == "set()", result.stderr


def test_an_interpreter_without_vllm_says_how_to_get_one() -> None:
    result = python("from tuneloom_engine.inside.serve import main; main()")
    assert result.returncode == 1
    assert "make install-engine" in result.stderr


def test_a_taken_port_is_named_with_its_setting() -> None:
    code = (
        "import os, socket, tuneloom_engine.__main__ as host;"
        "taken = socket.create_server(('127.0.0.1', 0));"
        "os.environ.update(TUNELOOM_ENGINE_PORT=str(taken.getsockname()[1]), TUNELOOM_ENGINE_OBJECTS_URL='memory://');"
        "host.main()"
    )
    result = python(code)
    assert result.returncode == 1
    assert "TUNELOOM_ENGINE_PORT" in result.stderr


def test_what_the_host_writes_is_private(tmp_path: Path) -> None:
    """Also when the shell that starts it has a generous umask."""
    code = """
import asyncio, os, stat
from pathlib import Path
import tuneloom_engine.__main__ as host
from tuneloom_engine.app import build

async def run(settings, listener):
    from tuneloom_common.kinds import Kind
    from tuneloom_engine.launch import Launch
    from tuneloom_engine.process import EngineProcess
    from tuneloom_engine.start_times import StartTimes

    child = Launch(("/bin/sh", "-c", "umask; echo said > said"), {})
    process = await EngineProcess.spawn(child, socket=Path("1.sock"), log=Path("logs/engine.log").absolute())
    await process.wait()
    StartTimes(Path("cache/times.json")).note("a", "base", 1.0)

host.run = run
host.main()
for path in sorted(Path().rglob("*")):
    print(path, oct(stat.S_IMODE(path.stat().st_mode)))
"""
    result = python(
        f"import os; os.umask(0); os.chdir({str(tmp_path)!r})\n{code}",
        TUNELOOM_ENGINE_OBJECTS_URL="memory://",
        TUNELOOM_ENGINE_PORT="0",
    )
    modes = dict(line.split() for line in result.stdout.splitlines())
    assert modes == {
        "cache": "0o700",
        "cache/times.json": "0o600",
        "logs": "0o700",
        "logs/engine.log": "0o600",
        "said": "0o600",
    }, result.stderr


ORPHAN = """
import multiprocessing, os
from tuneloom_engine.inside.resolver import end_with_the_host
def child():
    end_with_the_host()
    print("tied to", os.environ["{variable}"] == str(os.getpid()))
if __name__ == "__main__":
    end_with_the_host()
    os.environ["{variable}"] = os.environ.get("PRETENDED_PARENT", str(os.getpid()))
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    raise SystemExit(process.exitcode)
""".replace("{variable}", PARENT_VARIABLE)


def test_a_process_of_vllm_is_tied_to_the_one_that_started_it() -> None:
    result = python(ORPHAN)
    assert (result.returncode, result.stdout.strip()) == (0, "tied to True"), result.stderr


def test_a_process_of_vllm_whose_parent_is_gone_ends() -> None:
    assert python(ORPHAN, PRETENDED_PARENT="1").returncode == 1
