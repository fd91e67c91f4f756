"""Which weight files of a base are needed after all: told by a child, since headers are parsed to know it.

`python -m tuneloom_registry.transforms.planning DIRECTORY ACTION` writes `needs.json`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

from tuneloom_common import children
from tuneloom_common.errors import InvalidArgument, Unavailable
from tuneloom_registry.transforms.actions import ACTIONS
from tuneloom_registry.transforms.limits import limit_memory, limit_time
from tuneloom_registry.transforms.specs import ActionName, TransformNeeds, TransformRefusal, read_answer
from tuneloom_registry.transforms.workspace import Workspace

TIME_LIMIT_SECONDS = 300.0
MEMORY_LIMIT_BYTES = 4 << 30


async def base_weights(workspace: Workspace, action: ActionName) -> frozenset[str]:
    """Raises InvalidArgument for files that nobody can read, Unavailable when the child was lost."""
    command = [sys.executable, "-m", __name__, str(workspace.directory), action]
    child = await children.spawn(command, log=workspace.log)
    try:
        status = await child.wait()
    finally:
        await child.stop(grace_seconds=0)
    try:
        answer = read_answer(workspace.needs, TransformNeeds)
    except FileNotFoundError:
        tail = children.last_lines(workspace.log)
        raise Unavailable(
            f"the process that reads headers died with status {status}; its last words:\n{tail}"
        ) from None
    if isinstance(answer, TransformRefusal):
        raise InvalidArgument(f"{action}: {answer.error}", reason=answer.reason)
    return frozenset(answer.base_weights)


def main() -> None:
    children.die_with_parent()
    limit_time(TIME_LIMIT_SECONDS)
    limit_memory(MEMORY_LIMIT_BYTES)
    workspace = Workspace(Path(sys.argv[1]))
    try:
        needed = ACTIONS[cast(ActionName, sys.argv[2])].base_weights(workspace)
    except (ValueError, MemoryError) as error:
        reason = str(error) or f"its headers need more than {MEMORY_LIMIT_BYTES} bytes of memory"
        TransformRefusal(reason="INVALID_INPUT", error=reason).write(workspace.needs)
    else:
        TransformNeeds(base_weights=tuple(sorted(needed))).write(workspace.needs)


if __name__ == "__main__":
    main()
