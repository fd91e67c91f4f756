"""Rows are checked before they become a version: in a child, with limits of time, memory and size.

The check parses what anybody sent. In this process it would hold up every other caller, and a hostile file could take
the memory of all of them.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tuneloom_common import children
from tuneloom_common.errors import InvalidArgument, ResourceExhausted
from tuneloom_common.manifests import FileEntry, Manifest
from tuneloom_common.objects import ObjectStore
from tuneloom_data.child import Report, check_command, parse_report
from tuneloom_data.limits import Limits, in_words

GRACE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class DatasetChecks:
    """`slots` bounds how many run at once; `staging` is where files lie meanwhile; `command` makes a child's command
    line."""

    objects: ObjectStore
    staging: Path
    limits: Limits
    slots: asyncio.Semaphore
    command: Callable[[list[Path], Limits], list[str]] = check_command

    async def require(self, manifest: Manifest) -> None:
        """Raises InvalidArgument naming file and row when a dataset cannot be trained on."""
        for file in manifest.files:
            self._require_size(file)
        directory = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self.staging))
        try:
            rows = await self.objects.materialize(manifest.files, directory / "rows")
            async with self.slots:
                report = await self._check([rows / file.path for file in manifest.files], log=directory / "report")
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, True)
        for file, found in zip(manifest.files, report.files, strict=False):
            if not found.report.passed:
                raise _refused(f"{file.path}: {found.report.summary()}; mend them and upload again")
        if len(report.files) < len(manifest.files):
            raise _refused(f"{manifest.files[len(report.files)].path}: was not reached; split the dataset")

    def _require_size(self, file: FileEntry) -> None:
        if file.size > self.limits.file_bytes:
            raise _refused(
                f"{file.path}: {in_words(file.size)} is more than the {in_words(self.limits.file_bytes)} that are "
                "checked here; split the file, or raise TUNELOOM_REGISTRY_MAX_DATASET_BYTES"
            )

    async def _check(self, paths: list[Path], *, log: Path) -> Report:
        if await self._run(paths, log) < 0:  # killed, which need not be the file's fault
            await self._run(paths, log)
        try:
            return parse_report(await asyncio.to_thread(log.read_bytes))
        except ValueError as error:  # nothing is known about the rows
            raise ResourceExhausted(str(error), reason="CHECK_ENDED") from None

    async def _run(self, paths: list[Path], log: Path) -> int:
        """The child's exit status; zero when its time was over."""
        child = await children.spawn(self.command(paths, self.limits), log=log)
        try:
            async with asyncio.timeout(self.limits.seconds + GRACE_SECONDS):
                return await child.wait()
        except TimeoutError:
            return 0  # it has left no report, and would leave none the next time
        finally:
            await child.stop(grace_seconds=0)


def _refused(message: str) -> InvalidArgument:
    return InvalidArgument(message, field="manifest_json", reason="DATA_CONTRACT")
