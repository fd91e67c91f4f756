"""Clients of every release are served by today's protos. `protos/released/` holds what was released."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

from tests.contract.breaking import breaking_changes

PROTOS = Path(__file__).parents[2] / "protos"
RELEASED = sorted((PROTOS / "released").glob("*.binpb"))
FIRST = FileDescriptorSet.FromString((PROTOS / "released" / "0.1.0.binpb").read_bytes())
JOB = "tuneloom.trainer.v1.TrainingJob"
Files = dict[str, FileDescriptorProto]
Change = Callable[[Files], object]


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorSet:
    out = tmp_path_factory.mktemp("protos") / "set.binpb"
    sources = [str(path.relative_to(PROTOS)) for path in sorted((PROTOS / "tuneloom").rglob("*.proto"))]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", f"-o{out}", *sources], check=True, cwd=PROTOS)
    return FileDescriptorSet.FromString(out.read_bytes())


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_nothing_that_was_released_is_broken(path: Path, current: FileDescriptorSet) -> None:
    released = FileDescriptorSet.FromString(path.read_bytes())
    assert released.file
    assert not any(file.HasField("source_code_info") for file in released.file)
    assert breaking_changes(released, current) == []


# The check finds every kind of break.


def message(files: Files, name: str) -> DescriptorProto:
    return next(m for file in files.values() for m in file.message_type if m.name == name)


def field(files: Files, name: str) -> FieldDescriptorProto:
    owner, _, own = name.partition(".")
    return next(found for found in message(files, owner).field if found.name == own)


def remove(files: Files, name: str, *, reserve: bool = False) -> None:
    owner = message(files, name.partition(".")[0])
    gone = field(files, name)
    if reserve:
        owner.reserved_range.add(start=gone.number, end=gone.number + 1)
        owner.reserved_name.append(gone.name)
    owner.field.remove(gone)


def rpc(files: Files, name: str):  # type: ignore[no-untyped-def]
    services = [service for file in files.values() for service in file.service]
    return next(method for service in services for method in service.method if method.name == name)


def enum(files: Files, name: str):  # type: ignore[no-untyped-def]
    return next(found for file in files.values() for found in file.enum_type if found.name == name)


def services(files: Files) -> FileDescriptorProto:
    return files["tuneloom/trainer/v1/trainer.proto"]


def jobs(files: Files) -> FileDescriptorProto:
    return files["tuneloom/trainer/v1/jobs.proto"]


BREAKS: dict[str, tuple[Change, str]] = {
    "a field removed": (lambda f: remove(f, "TrainingJob.merge"), f"{JOB}.merge: field 7 is gone"),
    "a field removed and reserved": (
        lambda f: remove(f, "TrainingJob.merge", reserve=True),
        f"{JOB}.merge: field 7 is gone",
    ),
    "a field renumbered": (
        lambda f: setattr(field(f, "TrainingJob.merge"), "number", 70),
        f"{JOB}.merge: field 7 became field 70",
    ),
    "a field renamed": (
        lambda f: setattr(field(f, "TrainingJob.merge"), "name", "fold"),
        f"{JOB}.merge: field 7 is gone",
    ),
    "its JSON name": (
        lambda f: setattr(field(f, "TrainingJob.base_model"), "json_name", "base"),
        f"{JOB}.base_model JSON name: baseModel became base",
    ),
    "a field retyped": (
        lambda f: setattr(field(f, "TrainingJob.merge"), "type", FieldDescriptorProto.TYPE_INT32),
        f"{JOB}.merge type: bool became int32",
    ),
    "another message": (
        lambda f: setattr(field(f, "TrainingJob.spec"), "type_name", ".tuneloom.trainer.v1.LoraSpec"),
        f"{JOB}.spec type: message tuneloom.trainer.v1.TrainingSpec became message tuneloom.trainer.v1.LoraSpec",
    ),
    "made repeated": (
        lambda f: setattr(field(f, "TrainingJob.error"), "label", FieldDescriptorProto.LABEL_REPEATED),
        f"{JOB}.error label: singular became repeated",
    ),
    "presence lost": (
        lambda f: field(f, "LoraSpec.r").ClearField("proto3_optional"),
        "tuneloom.trainer.v1.LoraSpec.r label: optional became singular",
    ),
    "out of its oneof": (
        lambda f: field(f, "Build.merge").ClearField("oneof_index"),
        "tuneloom.registry.v1.Build.merge oneof: member of spec became member of none",
    ),
    "a oneof renamed": (
        lambda f: setattr(message(f, "TrainingJobEvent").oneof_decl[0], "name", "what"),
        "tuneloom.trainer.v1.TrainingJobEvent.note oneof: member of event became member of what",
    ),
    "a map's value retyped": (
        lambda f: setattr(message(f, "Model").nested_type[0].field[1], "type", FieldDescriptorProto.TYPE_STRING),
        "tuneloom.registry.v1.Model.AliasesEntry.value type: int64 became string",
    ),
    "a message removed": (
        lambda f: jobs(f).message_type.remove(message(f, "LoraSpec")),
        "tuneloom.trainer.v1.LoraSpec: message is gone",
    ),
    "an enum removed": (
        lambda f: jobs(f).enum_type.remove(enum(f, "Method")),
        "tuneloom.trainer.v1.Method: enum is gone",
    ),
    "an enum value removed": (
        lambda f: enum(f, "JobState").value.pop(5),
        "tuneloom.trainer.v1.JobState.JOB_STATE_PAUSED: value 5 is gone",
    ),
    "an enum value renumbered": (
        lambda f: setattr(enum(f, "JobState").value[5], "number", 50),
        "tuneloom.trainer.v1.JobState.JOB_STATE_PAUSED: value 5 became value 50",
    ),
    "an enum value renamed": (
        lambda f: setattr(enum(f, "JobState").value[5], "name", "JOB_STATE_HELD"),
        "tuneloom.trainer.v1.JobState.JOB_STATE_PAUSED: value 5 is gone",
    ),
    "a call removed": (
        lambda f: services(f).service[0].method.remove(rpc(f, "ListRecipes")),
        "tuneloom.trainer.v1.TrainerService.ListRecipes: method is gone",
    ),
    "a call's request": (
        lambda f: setattr(rpc(f, "GetTrainingJob"), "input_type", ".tuneloom.trainer.v1.ListRecipesRequest"),
        "tuneloom.trainer.v1.TrainerService.GetTrainingJob request: tuneloom.trainer.v1.GetTrainingJobRequest became "
        "tuneloom.trainer.v1.ListRecipesRequest",
    ),
    "a call's response": (
        lambda f: setattr(rpc(f, "GetTrainingJob"), "output_type", ".tuneloom.trainer.v1.Checkpoint"),
        "tuneloom.trainer.v1.TrainerService.GetTrainingJob response: tuneloom.trainer.v1.TrainingJob became "
        "tuneloom.trainer.v1.Checkpoint",
    ),
    "a stream ended": (
        lambda f: rpc(f, "WatchTrainingJob").ClearField("server_streaming"),
        "tuneloom.trainer.v1.TrainerService.WatchTrainingJob response: stream tuneloom.trainer.v1.TrainingJobEvent "
        "became tuneloom.trainer.v1.TrainingJobEvent",
    ),
    "a stream begun": (
        lambda f: setattr(rpc(f, "GetTrainingJob"), "client_streaming", True),
        "tuneloom.trainer.v1.TrainerService.GetTrainingJob request: tuneloom.trainer.v1.GetTrainingJobRequest became "
        "stream tuneloom.trainer.v1.GetTrainingJobRequest",
    ),
    "a service renamed": (
        lambda f: setattr(services(f).service[0], "name", "JobService"),
        "tuneloom.trainer.v1.TrainerService: service is gone",
    ),
    "a package renamed": (
        lambda f: setattr(jobs(f), "package", "tuneloom.trainer.v2"),
        f"{JOB}: message is gone",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_found_and_named(name: str) -> None:
    change, expected = BREAKS[name]
    assert expected in breaking_changes(FIRST, changed(change))


def changed(change: Change) -> FileDescriptorSet:
    mutated = FileDescriptorSet.FromString(FIRST.SerializeToString())
    change({file.name: file for file in mutated.file})
    return mutated


def test_no_released_field_or_call_escapes() -> None:
    places = [(m.name, f.name) for file in FIRST.file for m in file.message_type for f in m.field]
    calls = [(s.name, m.name) for file in FIRST.file for s in file.service for m in s.method]
    assert (len(places), len(calls)) == (187, 27)
    for owner, name in places:
        found = breaking_changes(FIRST, changed(lambda f: remove(f, f"{owner}.{name}")))  # noqa: B023
        assert any(line.endswith(" is gone") and f".{owner}.{name}: field" in line for line in found)
    for service, name in calls:
        found = breaking_changes(FIRST, changed(lambda f: setattr(rpc(f, name), "name", "Other")))  # noqa: B023
        assert any(f".{service}.{name}: method is gone" in line for line in found)


def test_what_was_reserved_stays_reserved() -> None:
    released = changed(lambda f: remove(f, "TrainingJob.merge", reserve=True))
    reused = changed(lambda f: remove(f, "TrainingJob.merge"))
    assert breaking_changes(released, reused) == [
        f"{JOB} number 7: reserved is gone",
        f"{JOB} name 'merge': reserved is gone",
    ]


ADDITIONS: dict[str, Change] = {
    "a field": lambda f: message(f, "TrainingJob").field.add(name="priority", number=99, type=5, label=1),
    "an optional field": lambda f: message(f, "LoraSpec").field.add(
        name="dora", number=99, type=8, label=1, proto3_optional=True, oneof_index=0
    ),
    "a member of a oneof": lambda f: message(f, "Build").field.add(
        name="export", number=99, type=11, label=1, type_name=".tuneloom.registry.v1.MergeSpec", oneof_index=0
    ),
    "a message": lambda f: jobs(f).message_type.add(name="Priority"),
    "an enum value": lambda f: enum(f, "JobState").value.add(name="JOB_STATE_HELD", number=10),
    "a call": lambda f: (
        services(f)
        .service[0]
        .method.add(
            name="Rename", input_type=".tuneloom.trainer.v1.Checkpoint", output_type=".tuneloom.trainer.v1.Checkpoint"
        )
    ),
    "a service": lambda f: services(f).service.add(name="WorkerService"),
    "a deprecation": lambda f: setattr(field(f, "TrainingJob.merge").options, "deprecated", True),
    "another order": lambda f: jobs(f).message_type.sort(key=lambda m: m.name),
}


@pytest.mark.parametrize("name", ADDITIONS)
def test_additions_are_fine(name: str) -> None:
    assert breaking_changes(FIRST, changed(ADDITIONS[name])) == []


def test_a_new_major_package_is_an_addition() -> None:
    mutated = changed(lambda f: None)
    later = mutated.file.add()
    later.CopyFrom(mutated.file[0])
    later.name, later.package = "later.proto", "tuneloom.common.v2"
    assert breaking_changes(FIRST, mutated) == []
