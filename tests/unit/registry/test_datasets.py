from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tuneloom_common.errors import ResourceExhausted
from tuneloom_common.manifests import Manifest
from tuneloom_common.objects import ObjectStore
from tuneloom_data.child import check_command
from tuneloom_data.limits import Limits
from tuneloom_registry.datasets import DatasetChecks

ROW = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}\n'


class Killed:
    """Makes commands of which the first `times` kill themselves."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.started = 0

    def __call__(self, paths: list[Path], limits: Limits) -> list[str]:
        self.started += 1
        self.left -= 1
        dying = [sys.executable, "-S", "-c", "import os; os.kill(os.getpid(), 9)"]
        return dying if self.left >= 0 else check_command(paths, limits)


async def require(tmp_path: Path, command: Killed) -> None:
    objects = await ObjectStore(f"file://{tmp_path}/objects").create()
    file = tmp_path / "rows"
    file.write_text(ROW)
    manifest = Manifest(kind="dataset", files=(await objects.put_file(file, name="data.jsonl"),))
    await DatasetChecks(objects, tmp_path, Limits(), asyncio.Semaphore(1), command).require(manifest)


async def test_a_check_that_was_killed_is_made_again(tmp_path: Path) -> None:
    await require(tmp_path, Killed(1))


async def test_a_check_that_is_killed_each_time_says_that_nothing_is_known(tmp_path: Path) -> None:
    command = Killed(9)
    with pytest.raises(ResourceExhausted, match="without a report"):
        await require(tmp_path, command)
    assert command.started == 2
