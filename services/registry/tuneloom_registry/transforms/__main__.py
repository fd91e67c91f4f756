"""Entry point of the child: `python -m tuneloom_registry.transforms DIRECTORY`."""

from __future__ import annotations

import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from tuneloom_common.children import die_with_parent
from tuneloom_common.disks import EXIT_DISK_FULL, is_full
from tuneloom_registry.refusals import Refusal
from tuneloom_registry.transforms.actions import ACTIONS
from tuneloom_registry.transforms.limits import limit_memory, limit_time
from tuneloom_registry.transforms.specs import TransformRefusal, TransformResult, TransformSpec, read_spec
from tuneloom_registry.transforms.workspace import Workspace


class _Module(Protocol):
    def run(self, workspace: Workspace, spec: TransformSpec) -> TransformResult: ...


def main() -> None:
    die_with_parent()
    workspace = Workspace(Path(sys.argv[1]))
    spec = read_spec(workspace.spec)
    limit_time(spec.time_limit_seconds)
    limit_memory(spec.memory_limit_bytes)
    transform(workspace, spec)


def transform(workspace: Workspace, spec: TransformSpec) -> None:
    """Runs the action and writes its answer last; what an earlier attempt left is removed first."""
    workspace.result.unlink(missing_ok=True)
    shutil.rmtree(workspace.out, ignore_errors=True)
    try:
        cast(_Module, import_module(ACTIONS[spec.action].module)).run(workspace, spec).write(workspace.result)
    except Refusal as refusal:
        TransformRefusal(reason=refusal.reason, error=str(refusal)).write(workspace.result)
    except ValueError as error:
        TransformRefusal(reason="INVALID_INPUT", error=str(error)).write(workspace.result)
    except MemoryError:
        if spec.memory_limit_bytes is None:
            raise
        TransformRefusal(reason="OUT_OF_MEMORY", error=_out_of_memory(spec)).write(workspace.result)
    except Exception as error:
        if not is_full(error):
            raise
        raise SystemExit(EXIT_DISK_FULL) from None


def _out_of_memory(spec: TransformSpec) -> str:
    return (
        f"the {spec.action} needed more than {spec.memory_limit_bytes} bytes of memory, far more than its weights "
        "should; look for a damaged or hostile input file"
    )


if __name__ == "__main__":
    main()
