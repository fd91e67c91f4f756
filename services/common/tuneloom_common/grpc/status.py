"""Our errors as google.rpc.Status with ErrorInfo and BadRequest, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from tuneloom_common import errors
from tuneloom_common.tls import PeerTls
from tuneloom_common.tls.faults import REASON as HANDSHAKE_FAILED
from tuneloom_common.tls.faults import fault_told, sentence

MAX_ERROR_BYTES = 1200


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns a failed call into our own error, with the server's message; `what` names the service."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, what) from None


def from_rpc_error(
    error: grpc.aio.AioRpcError,
    what: str,
    *,
    tls: PeerTls | None = None,
    setting: str = "",
    address_setting: str = "",
) -> errors.TuneloomError:
    """The error the server raised, as far as its status tells. `setting` begins the names of settings about it;
    without an `address_setting` it is a service of this home."""
    if error.code() == grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata():
        if fault := fault_told(error.details() or ""):
            return errors.Unavailable(sentence(fault, what, tls=tls, setting=setting), reason=HANDSHAKE_FAILED)
        step = f"See whether it is where {address_setting} says" if address_setting else "Start it with 'tuneloom up'"
        return errors.Unavailable(f"the {what} does not answer; is it running? {step}")
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.Unavailable(f"the {what} did not answer in time; try again", reason="TIMEOUT")
    leaf = errors.BY_CODE.get(error.code().name, errors.TuneloomError)
    reason, field, metadata = None, "", {}
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    for detail in status.details if status else ():
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad) and bad.field_violations:
            field = bad.field_violations[0].field
    return leaf(error.details() or error.code().name, reason=reason, field=field, metadata=metadata)


def rich_status(error: errors.TuneloomError, domain: str) -> status_pb2.Status:
    message = _clipped(error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=domain, metadata=error.metadata)
    details = [any_pb2.Any()]
    details[0].Pack(info)
    if isinstance(error, errors.InvalidArgument):
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field=error.field, description=message)
        details.append(any_pb2.Any())
        details[1].Pack(bad)
    return status_pb2.Status(code=code_pb2.Code.Value(error.code), message=message, details=details)


def _clipped(message: str) -> str:
    """At most MAX_ERROR_BYTES: a status travels as headers, three times over, and gRPC drops headers above 8 KiB."""
    data = message.encode()
    return message if len(data) <= MAX_ERROR_BYTES else data[: MAX_ERROR_BYTES - 3].decode(errors="ignore") + "…"
