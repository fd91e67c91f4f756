"""What can be killed: the processes of one home by kind, and the phases of jobs that they are in."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path


class Kind(StrEnum):
    UP = "up"
    REGISTRY = "registry"
    TRAINER = "trainer"
    GATEWAY = "gateway"
    ENGINE = "engine host"
    VLLM = "vLLM"
    WORKER = "training worker"
    TRANSFORM = "transform child"
    CHECK = "data check child"


class Phase(StrEnum):
    CREATE = "create"
    TRAIN = "train"
    CONVERT = "convert"
    MERGE = "merge"


MODULES = {
    "tuneloom_registry.transforms": Kind.TRANSFORM,
    "tuneloom_data.check": Kind.CHECK,
    "tuneloom_trainer.worker": Kind.WORKER,
    "tuneloom_engine.inside.serve": Kind.VLLM,
    "tuneloom_registry": Kind.REGISTRY,
    "tuneloom_trainer": Kind.TRAINER,
    "tuneloom_gateway": Kind.GATEWAY,
    "tuneloom_engine": Kind.ENGINE,
    "tuneloom_cli": Kind.UP,
    "tests.chaos.supervisor": Kind.UP,
}


@dataclass(frozen=True, slots=True)
class Victim:
    """`phase` is what a child works at; services work at everything."""

    pid: int
    kind: Kind
    phase: Phase | None = None

    def kill(self) -> bool:
        """Whether it was still there."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
            return True
        return False


def victims(home: Path) -> list[Victim]:
    """Everything of a home that runs and has a kind."""
    found = []
    for pid, command in processes(home):
        module = next((after for flag, after in pairwise(command) if flag == "-m"), "")
        kind = MODULES.get(module)
        if kind is None or (module == "tuneloom_cli" and "up" not in command):
            continue
        found.append(Victim(pid, kind, _phase(kind, command)))
    return found


def sweep(home: Path) -> None:
    """Kills everything of a home: for a script that is interrupted."""
    while found := victims(home):
        for each in sorted(found, key=lambda each: each.kind is not Kind.UP):
            each.kill()
        time.sleep(0.2)


def processes(home: Path) -> Iterator[tuple[int, list[str]]]:
    """Pid and command of everything that runs for a home: it is in the environment, the command or the directory."""
    mark = str(home).encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if command and (mark in command or mark in (entry / "environ").read_bytes()):
                yield int(entry.name), command.decode(errors="replace").split("\0")


def _phase(kind: Kind, command: list[str]) -> Phase | None:
    match kind:
        case Kind.WORKER:
            return Phase.TRAIN
        case Kind.CHECK:
            return Phase.CREATE
        case Kind.TRANSFORM:
            with suppress(OSError, ValueError, IndexError):
                directory = Path([part for part in command if part][-1])
                return Phase(json.loads((directory / "build.json").read_bytes())["action"])
    return None
