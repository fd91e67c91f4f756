"""What breaks a client between two sets of protos: the rules of `buf breaking` (WIRE_JSON and names) on descriptors.

Everything a released set says about an element must still be said; more may be said. A v2 package stands beside v1
and is an addition. Reserving the number of a removed field mends nothing: its clients are broken all the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

Facts = dict[str, str]


def breaking_changes(released: FileDescriptorSet, current: FileDescriptorSet) -> list[str]:
    """One line per broken promise, naming the element; empty when clients of the released set are served."""
    now = facts(current)
    return [
        f"{name}: {told} became {now[name]}" if name in now else f"{name}: {told} is gone"
        for name, told in facts(released).items()
        if now.get(name) != told
    ]


def facts(files: FileDescriptorSet) -> Facts:
    """What a set promises, by element: fields and enum values both by number and by name."""
    return dict(fact for file in files.file for fact in _package(file.package, file))


def _package(package: str, file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for message in file.message_type:
        yield from _message(f"{package}.{message.name}", message)
    for enum in file.enum_type:
        yield from _enum(f"{package}.{enum.name}", enum)
    for service in file.service:
        yield from _service(f"{package}.{service.name}", service)


def _message(name: str, message: DescriptorProto) -> Iterator[tuple[str, str]]:
    yield name, "message"
    for field in message.field:
        yield f"{name}.{field.name}", f"field {field.number}"
        yield f"{name}.{field.name} type", _type(field)
        yield f"{name}.{field.name} label", _label(field)
        yield f"{name}.{field.name} oneof", _oneof(message, field)
        yield f"{name}.{field.name} JSON name", field.json_name
    for nested in message.nested_type:
        yield from _message(f"{name}.{nested.name}", nested)
    for enum in message.enum_type:
        yield from _enum(f"{name}.{enum.name}", enum)
    for reserved in message.reserved_range:
        for number in range(reserved.start, min(reserved.end, reserved.start + 1000)):
            yield f"{name} number {number}", "reserved"
    for reserved_name in message.reserved_name:
        yield f"{name} name {reserved_name!r}", "reserved"


def _type(field: FieldDescriptorProto) -> str:
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"{kind} {field.type_name.removeprefix('.')}".strip()


def _label(field: FieldDescriptorProto) -> str:
    if field.proto3_optional:
        return "optional"
    return FieldDescriptorProto.Label.Name(field.label).removeprefix("LABEL_").lower().replace("optional", "singular")


def _oneof(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    if field.HasField("oneof_index") and not field.proto3_optional:
        return f"member of {message.oneof_decl[field.oneof_index].name}"
    return "member of none"


def _enum(name: str, enum: EnumDescriptorProto) -> Iterator[tuple[str, str]]:
    yield name, "enum"
    for value in enum.value:
        yield f"{name}.{value.name}", f"value {value.number}"
    for reserved in enum.reserved_range:
        for number in range(reserved.start, min(reserved.end + 1, reserved.start + 1000)):
            yield f"{name} number {number}", "reserved"


def _service(name: str, service: ServiceDescriptorProto) -> Iterator[tuple[str, str]]:
    yield name, "service"
    for method in service.method:
        yield f"{name}.{method.name}", "method"
        yield f"{name}.{method.name} request", _stream(method.client_streaming, method.input_type)
        yield f"{name}.{method.name} response", _stream(method.server_streaming, method.output_type)


def _stream(streaming: bool, message: str) -> str:
    return f"{'stream ' if streaming else ''}{message.removeprefix('.')}"
