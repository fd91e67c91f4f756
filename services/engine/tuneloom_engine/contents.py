"""Whether a version's files can be a model at all, found out before an engine is stopped to make room for it.

Reads headers, never weights: what vLLM would notice after half a minute, and what it would not notice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tuneloom_common.errors import FailedPrecondition

MAX_HEADER_BYTES = 100 << 20


def check_model(directory: Path, name: str) -> None:
    """Raises FailedPrecondition that names the file at fault."""
    config = _json(directory / "config.json", name)
    if not (config.get("model_type") or config.get("architectures")):
        raise _incomplete(name, "config.json names neither model_type nor architectures")
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise _incomplete(name, "it has no .safetensors file with weights")
    index = directory / "model.safetensors.index.json"
    if index.exists():
        _check_index(_json(index, name), {file.name for file in files}, name)
    for file in files:
        _check_weights(file, name)


def _check_index(index: dict[str, Any], present: set[str], name: str) -> None:
    shards = index.get("weight_map")
    named = {str(shard) for shard in shards.values()} if isinstance(shards, dict) else set()
    if missing := sorted(named - present):
        raise _incomplete(name, f"{missing[0]}, which its index names, is missing")


def _check_weights(file: Path, name: str) -> None:
    """A safetensors file: 8 bytes with the length of a JSON header, the header, the tensors without a gap."""
    size = file.stat().st_size
    with file.open("rb") as source:
        length = int.from_bytes(source.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            raise _incomplete(name, f"{file.name} is not a safetensors file")
        header = _object(source.read(length), f"the header of {file.name}", name)
    ends = [
        tensor["data_offsets"][1]
        for key, tensor in header.items()
        if key != "__metadata__" and isinstance(tensor, dict) and len(tensor.get("data_offsets", ())) == 2
    ]
    if 8 + length + max(ends, default=0) != size:
        raise _incomplete(name, f"{file.name} has {size} bytes, its header says {8 + length + max(ends, default=0)}")


def _json(file: Path, name: str) -> dict[str, Any]:
    try:
        return _object(file.read_bytes(), file.name, name)
    except FileNotFoundError:
        raise _incomplete(name, f"{file.name} is missing") from None


def _object(text: bytes, what: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _incomplete(name, f"{what} is not a JSON object")
    return value


def _incomplete(name: str, what: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{name} cannot be served: {what}; register the version again with all its files", reason="MODEL_INCOMPLETE"
    )
