"""What became of a child, read from its workspace and exit status, and the manifest of what it made."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from tuneloom_common import children
from tuneloom_common.disks import EXIT_DISK_FULL
from tuneloom_common.manifests import FileEntry, Lineage, Manifest
from tuneloom_registry.transforms.specs import TransformRefusal, TransformResult, read_answer, read_spec
from tuneloom_registry.transforms.workspace import Workspace
from tuneloom_registry.versions import Version


@dataclass(frozen=True, slots=True)
class Done:
    """`out/` holds what the result says."""

    result: TransformResult


@dataclass(frozen=True, slots=True)
class Refused:
    """Failed for good: another attempt would end the same way."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The child left no answer: killed, out of memory, or a fault of its own. Another attempt may succeed.

    `status` is negative for the signal that killed it; `tail` are its last words.
    """

    status: int
    tail: str

    @property
    def message(self) -> str:
        return (
            f"the build process died with status {self.status} (negative: killed by that signal, -9 is often out of "
            f"memory); its last words:\n{self.tail}"
        )


@dataclass(frozen=True, slots=True)
class Full:
    """The child found no space; another one may."""

    message: str


Outcome = Done | Refused | Lost | Full


def read_outcome(directory: Path, returncode: int) -> Outcome:
    """An answer counts however the child ended after it; without one the exit status says what happened."""
    workspace = Workspace(directory)
    try:
        answer = read_answer(workspace.result, TransformResult)
    except FileNotFoundError:
        if returncode == -signal.SIGALRM:
            return Refused("DEADLINE_EXCEEDED", _too_long(workspace))
        if returncode == EXIT_DISK_FULL:
            return Full(f"no space left in {workspace.directory}; free some")
        return Lost(returncode, children.last_lines(workspace.log))
    except ValueError as error:  # only another program writes such an answer
        return Lost(returncode, f"the build has no usable result: {error}")
    if isinstance(answer, TransformRefusal):
        return Refused(answer.reason, answer.error)
    if not workspace.out.is_dir():
        return Lost(returncode, "the build has no usable result: it made no files")
    return Done(answer)


def result_manifest(
    result: TransformResult, files: tuple[FileEntry, ...], *, source: Version, base: Manifest
) -> Manifest:
    """The manifest of the stored output: its origin is the source, its template the one it was trained with."""
    lineage = source.manifest.lineage or Lineage()
    return Manifest(
        kind=result.kind,
        files=files,
        base=source.manifest.base,
        template=source.manifest.template or base.template,
        lora=result.lora,
        lineage=lineage.model_copy(update={"parent": source.digest}),
        proof=result.proof,
    )


def _too_long(workspace: Workspace) -> str:
    spec = read_spec(workspace.spec)
    return (
        f"the {spec.action} took longer than {spec.time_limit_seconds:.0f} s and was ended (last: "
        f"{workspace.progress() or 'no progress'}); raise TUNELOOM_REGISTRY_BUILD_TIMEOUT_SECONDS, or look for a chat "
        "template or a pattern in its configuration that never ends"
    )
