"""Fills a workspace with what its action reads, and no more: whole files verified, of others only the header."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from tuneloom_common.errors import InvalidArgument
from tuneloom_common.manifests import FileEntry, Manifest
from tuneloom_common.objects import ObjectStore
from tuneloom_registry.transforms.actions import ACTIONS, Files, Inputs
from tuneloom_registry.transforms.planning import base_weights
from tuneloom_registry.transforms.specs import TransformSpec
from tuneloom_registry.transforms.workspace import Workspace
from tuneloom_registry.weights.headers import LENGTH_BYTES, header_length

Fetch = Callable[[Iterable[FileEntry], Path], Awaitable[Path]]
FIRST_BYTES = 64 << 10  # holds the header of most files
_GIB = 1 << 30


async def prepare(
    workspace: Workspace,
    spec: TransformSpec,
    *,
    source: Manifest,
    base: Manifest,
    objects: ObjectStore,
    fetch: Fetch | None = None,
) -> None:
    """Writes `build.json` last. `fetch` makes whole files available in a new directory, as `materialize` does.

    Raises InvalidArgument for inputs that no attempt can read, and what the object store raises.
    """
    fetch = fetch or objects.materialize
    inputs = ACTIONS[spec.action].inputs(source, base)
    workspace.directory.mkdir(parents=True, exist_ok=True)
    await _fetch_whole(fetch, inputs.source, workspace.source)
    await _fetch_whole(fetch, inputs.base, workspace.base)
    for file in inputs.base_headers:
        await fetch_header(objects, file, workspace.headers / file.path)
    needed = await base_weights(workspace, spec.action) if inputs.open_ended else frozenset()
    await _add(fetch, tuple(file for file in inputs.base_headers if file.path in needed), workspace)
    limit = spec.memory_limit_bytes or memory_limit(inputs)
    spec.model_copy(update={"memory_limit_bytes": limit}).write(workspace.spec)


async def _fetch_whole(fetch: Fetch, files: Files, directory: Path) -> None:
    if files:
        await fetch(files, directory)
    else:
        directory.mkdir()


async def _add(fetch: Fetch, files: Files, workspace: Workspace) -> None:
    """Weight files beside the companions; a fetch makes new directories only."""
    if files:
        added = await fetch(files, workspace.directory / "base-weights")
        for file in files:
            (added / file.path).rename(workspace.base / file.path)


def memory_limit(inputs: Inputs) -> int:
    """Private memory in bytes that the inputs justify, generously: what is over it is a fault, not a large model."""
    source = sum(file.size for file in inputs.source)
    base = sum(file.size for file in inputs.base)
    return 4 * _GIB + 8 * (source + base)


async def fetch_header(objects: ObjectStore, file: FileEntry, target: Path) -> None:
    """Writes a file of the same size that holds the header and then a hole."""
    data = await objects.read_range(file.sha256, 0, min(file.size, FIRST_BYTES)) if file.size else b""
    try:
        end = LENGTH_BYTES + header_length(data[:LENGTH_BYTES], name=file.path, total=file.size)
    except ValueError as error:
        raise InvalidArgument(str(error), reason="INVALID_INPUT") from None
    if end > len(data):
        data += await objects.read_range(file.sha256, len(data), end)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as output:
        output.write(data[:end])
        output.truncate(file.size)
