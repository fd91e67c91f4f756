"""`python -m tuneloom_engine.inside.serve`, run in the engine environment: vLLM's server, tied to the host's life.

Imports nothing heavy, because vLLM's own processes import it again.
"""

from __future__ import annotations

import os
import runpy
import sys

from tuneloom_common.children import PARENT_VARIABLE, die_with_parent


def main() -> None:
    die_with_parent()
    os.environ[PARENT_VARIABLE] = str(os.getpid())  # for the processes that vLLM starts
    try:
        from vllm.entrypoints.launchers.api_server.entry import main as run_vllm
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("vllm."):
            raise SystemExit(
                f"{sys.executable} has no {error.name}; run 'make install-engine', or let "
                "TUNELOOM_ENGINE_PYTHON name an interpreter that has vLLM"
            ) from None
        runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")  # older releases
    else:
        run_vllm()


if __name__ == "__main__":
    main()
