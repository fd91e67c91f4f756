"""The contracts are documented to the last field, and shaped as the house rules say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

PROTOS = Path(__file__).parents[2] / "protos"

# Field numbers inside descriptor.proto, from which source paths are made.
_MESSAGES, _ENUMS, _SERVICES = 4, 5, 6
_FIELDS, _NESTED, _NESTED_ENUMS, _ONEOFS = 2, 3, 4, 8


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    out = tmp_path_factory.mktemp("protos") / "set.pb"
    sources = [str(path.relative_to(PROTOS)) for path in sorted((PROTOS / "tuneloom").rglob("*.proto"))]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", "--include_source_info", f"-o{out}"]
    subprocess.run([*command, *sources], check=True, cwd=PROTOS)
    return list(FileDescriptorSet.FromString(out.read_bytes()).file)


def test_every_element_is_commented(files: list[FileDescriptorProto]) -> None:
    silent = []
    for file in files:
        commented = {tuple(place.path) for place in file.source_code_info.location if place.leading_comments.strip()}
        silent += [f"{file.name}: {name}" for path, name in _elements(file) if path not in commented]
    assert not silent, silent


def test_enums_are_prefixed_and_start_unspecified(files: list[FileDescriptorProto]) -> None:
    for file in files:
        for enum in file.enum_type:
            prefix = "".join(f"_{c}" if c.isupper() else c.upper() for c in enum.name).lstrip("_").upper() + "_"
            assert enum.value[0].name == f"{prefix}UNSPECIFIED"
            assert all(value.name.startswith(prefix) for value in enum.value)


def test_every_call_has_a_request_and_lists_are_paged(files: list[FileDescriptorProto]) -> None:
    messages = {message.name: message for file in files for message in file.message_type}
    for file in files:
        for service in file.service:
            for method in service.method:
                assert method.input_type.endswith(f".{method.name}Request"), method.name
                fields = {field.name for field in messages[f"{method.name}Request"].field}
                if method.name.startswith("List") and method.name != "ListRecipes":
                    assert {"page_size", "page_token"} <= fields, method.name


def _elements(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    for i, message in enumerate(file.message_type):
        yield from _message_elements(message, (_MESSAGES, i))
    for i, enum in enumerate(file.enum_type):
        yield from _enum_elements(enum, (_ENUMS, i))
    for i, service in enumerate(file.service):
        yield (_SERVICES, i), service.name
        for j, method in enumerate(service.method):
            yield (_SERVICES, i, 2, j), f"{service.name}.{method.name}"


def _message_elements(message: DescriptorProto, path: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], str]]:
    if message.options.map_entry:
        return
    yield path, message.name
    for i, field in enumerate(message.field):
        yield (*path, _FIELDS, i), f"{message.name}.{field.name}"
    for i, nested in enumerate(message.nested_type):
        yield from _message_elements(nested, (*path, _NESTED, i))
    for i, enum in enumerate(message.enum_type):
        yield from _enum_elements(enum, (*path, _NESTED_ENUMS, i))
    synthetic = {field.oneof_index for field in message.field if field.proto3_optional}
    for i, oneof in enumerate(message.oneof_decl):
        if i not in synthetic:
            yield (*path, _ONEOFS, i), f"{message.name}.{oneof.name}"


def _enum_elements(enum: EnumDescriptorProto, path: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], str]]:
    yield path, enum.name
    for i, value in enumerate(enum.value):
        yield (*path, 2, i), value.name
