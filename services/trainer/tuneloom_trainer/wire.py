"""Between messages of the contract and values with the same names, by descriptor: no field is spelled out here."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


def values_of(message: Message) -> dict[str, Any]:
    """The fields a message sets, as plain values; enums in lower case without their prefix."""
    values: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            values[field.name] = values_of(value)
        elif field.enum_type is not None:
            known = field.enum_type.values_by_number.get(value)  # enums are open: a newer client may know more
            values[field.name] = known.name.removeprefix(_prefix(field.enum_type)).lower() if known else value
        elif field.is_repeated:
            values[field.name] = tuple(value)
        else:
            values[field.name] = value
    return values


def fill(message: M, value: object) -> M:
    """Sets every field for which the value has an attribute that is not None; returns the message."""
    message.SetInParent()
    for field in message.DESCRIPTOR.fields:
        attribute = getattr(value, field.name, None)
        if attribute is None:
            continue
        if field.is_repeated:
            getattr(message, field.name).extend(attribute)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            fill(getattr(message, field.name), attribute)
        elif field.enum_type is not None:
            name = f"{_prefix(field.enum_type)}{attribute.upper()}"
            setattr(message, field.name, field.enum_type.values_by_name[name].number)
        else:
            setattr(message, field.name, attribute)
    return message


def _prefix(enum: Any) -> str:
    name: str = enum.values_by_number[0].name
    return name.removesuffix("UNSPECIFIED")
