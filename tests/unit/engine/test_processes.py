"""What must hold across process borders."""

from __future__ import annotations

import os
import subprocess
import sys

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
