"""The table of actions: what each reads of its source and of its base, file by file.

An action's work is in a module of its own with a function `run(workspace, spec) -> TransformResult`. The module is
named here and not imported, because the service reads this table and must stay without numpy and torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tuneloom_common.manifests import FileEntry, Manifest
from tuneloom_registry.transforms.specs import ActionName
from tuneloom_registry.transforms.workspace import Workspace
from tuneloom_registry.weights import checkpoints, coverage
from tuneloom_registry.weights.headers import INDEX_FILE, SUFFIX, read_header, read_model

Files = tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files an action needs whole, and weight files of the base of which it needs the header.

    `open_ended`: headers and source say which of these are needed whole as well.
    """

    source: Files
    base: Files
    base_headers: Files = ()
    open_ended: bool = False


def no_weights(workspace: Workspace) -> frozenset[str]:
    """Nothing more is needed than was declared."""
    return frozenset()


@dataclass(frozen=True, slots=True)
class Action:
    """`inputs` declares from (source, base). `base_weights`, of open-ended inputs, names the rest once the source and
    the headers are there; it parses files, so it runs in a child."""

    module: str
    inputs: Callable[[Manifest, Manifest], Inputs]
    base_weights: Callable[[Workspace], frozenset[str]] = no_weights


def conversion_inputs(source: Manifest, base: Manifest) -> Inputs:
    """The trained weights and the shapes of the base's; after a full fine-tune also the base's companions."""
    weights = tuple(file for file in base.files if file.path.endswith(SUFFIX))
    companions = tuple(file for file in base.files if not file.path.endswith(SUFFIX))
    trained = tuple(file for file in source.files if file.path in (checkpoints.WEIGHTS_FILE, checkpoints.CONFIG_FILE))
    full = all(file.path != checkpoints.CONFIG_FILE for file in source.files)
    if not full:
        companions = tuple(file for file in companions if file.path == INDEX_FILE)
    return Inputs(source=trained, base=companions, base_headers=weights, open_ended=full)


def untrained_weights(workspace: Workspace) -> frozenset[str]:
    """After a full fine-tune: the files that hold what was not trained, or what it may be tied to."""
    trained = read_header(workspace.source / checkpoints.WEIGHTS_FILE)
    stored = read_model(workspace.base, headers=workspace.headers)
    return coverage.of(stored, trained).base_files


def whole_inputs(source: Manifest, base: Manifest) -> Inputs:
    return Inputs(source=source.files, base=base.files)


ACTIONS: Mapping[ActionName, Action] = {
    "convert": Action("tuneloom_registry.transforms.convert", conversion_inputs, untrained_weights),
    "merge": Action("tuneloom_registry.transforms.merge", whole_inputs),
}
