"""What a base model can be asked for, read from its stored files before a job is accepted. No weights are fetched."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ConfigDict

from tuneloom_common.errors import InvalidArgument
from tuneloom_common.manifests import FileEntry, Manifest
from tuneloom_common.objects import ObjectStore
from tuneloom_trainer.specs import TrainingSpec

CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 1 << 20
MAX_HEADER_BYTES = 32 << 20
HEADERS_AT_ONCE = 8
LAYERS_NAMED = 12
WITHOUT_ADAPTER = (
    "embed_tokens",
    "word_embeddings",
    "wte",
    "wpe",
    "embed_in",
    "embed_out",
    "lm_head",
)  # engines refuse
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")


@dataclass(frozen=True, slots=True)
class BaseConfig:
    """`config.json` as far as training cares. `context` is None where the architecture has no limit."""

    model_type: str
    context: int | None
    remote_code: bool

    @classmethod
    def parse(cls, data: bytes) -> BaseConfig:
        """Raises ValueError when it is no model's configuration."""
        try:
            fields = json.loads(data)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(fields, dict):
            raise ValueError("not a JSON object")
        text = fields.get("text_config")
        sources = (fields, text if isinstance(text, dict) else {})
        contexts = [value for source in sources for key in CONTEXT_KEYS if _is_count(value := source.get(key))]
        return cls(str(fields.get("model_type", "")), next(iter(contexts), None), bool(fields.get("auto_map")))


class Bases:
    """Holds a spec against the base it is for."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._known = known_model_types()

    async def fit(
        self, spec: TrainingSpec, manifest: Manifest, *, base_model: str, asked: Collection[str]
    ) -> TrainingSpec:
        """The spec with `max_length` inside the base's context; raises InvalidArgument with what does not fit.

        `asked` are the options the request sets itself: what it did not ask for is adapted in silence.
        """
        config = await read_base_config(self._objects, manifest, base_model=base_model)
        if config.model_type not in self._known:
            raise InvalidArgument(_unknown(config, base_model), field="base_model", reason="UNKNOWN_ARCHITECTURE")
        if spec.tuning == "lora" and spec.lora.target_modules:
            await self._require_layers(spec.lora.target_modules, manifest, base_model=base_model)
        if config.context is None or spec.max_length <= config.context:
            return spec
        if "max_length" in asked:
            raise InvalidArgument(
                f"spec.max_length: {base_model} has a context of {config.context} tokens, not {spec.max_length}; set "
                f"at most {config.context}, or leave it out",
                field="spec.max_length",
            )
        return spec.model_copy(update={"max_length": config.context})

    async def _require_layers(self, targets: Sequence[str], manifest: Manifest, *, base_model: str) -> None:
        layers = await read_linear_layers(self._objects, manifest)
        for target in targets:
            if layers and not any(layer == target or layer.endswith(f".{target}") for layer in layers):
                names = sorted({layer.rpartition(".")[2] for layer in layers})
                more = ", …" if len(names) > LAYERS_NAMED else ""
                raise InvalidArgument(
                    f"spec.lora.target_modules: {target!r} is no linear layer of {base_model} that takes an adapter; "
                    f"it has {', '.join(names[:LAYERS_NAMED])}{more}",
                    field="spec.lora.target_modules",
                )


async def read_base_config(objects: ObjectStore, manifest: Manifest, *, base_model: str) -> BaseConfig:
    """Raises InvalidArgument when the base has no usable `config.json`."""
    entry = next((file for file in manifest.files if file.path == CONFIG_FILE), None)
    if entry is None or entry.size > MAX_CONFIG_BYTES:
        raise InvalidArgument(
            f"base_model: {base_model} has no {CONFIG_FILE} of at most {MAX_CONFIG_BYTES} bytes; import it again",
            field="base_model",
        )
    data = b"".join([piece async for piece in objects.read_blob(entry.sha256)])
    try:
        return BaseConfig.parse(data)
    except ValueError as error:
        raise InvalidArgument(
            f"base_model: the {CONFIG_FILE} of {base_model} cannot be read: {error}; import it again",
            field="base_model",
        ) from None


async def read_linear_layers(objects: ObjectStore, manifest: Manifest) -> frozenset[str]:
    """Names of the modules that take an adapter, from the headers of the safetensors files; empty without any."""
    turns = asyncio.Semaphore(HEADERS_AT_ONCE)

    async def read(file: FileEntry) -> list[str]:
        async with turns:
            return _matrices(await _read_header(objects, file))

    shards = [file for file in manifest.files if file.path.endswith(".safetensors")]
    found = await asyncio.gather(*(read(file) for file in shards))
    return frozenset(name for names in found for name in names)


def known_model_types() -> frozenset[str]:
    """The text-generating architectures of the transformers release that workers use."""
    return frozenset(files("tuneloom_trainer").joinpath("model_types.txt").read_text("utf-8").split())


class _Tensor(BaseModel):
    model_config = ConfigDict(extra="ignore")

    shape: tuple[int, ...]


async def _read_header(objects: ObjectStore, file: FileEntry) -> bytes:
    (length,) = struct.unpack("<Q", await objects.read_range(file.sha256, 0, 8)) if file.size >= 8 else (0,)
    if length > min(MAX_HEADER_BYTES, file.size - 8):
        return b"{}"
    return await objects.read_range(file.sha256, 8, 8 + length) if length else b"{}"


def _matrices(header: bytes) -> list[str]:
    try:
        tensors = json.loads(header)
        return [
            layer
            for name, fields in tensors.items()
            if (layer := name.removesuffix(".weight")) != name
            and len(_Tensor.model_validate(fields).shape) == 2
            and not layer.endswith(WITHOUT_ADAPTER)
        ]
    except (ValueError, AttributeError, RecursionError):
        return []


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _unknown(config: BaseConfig, base_model: str) -> str:
    if config.remote_code:
        return (
            f"base_model: {base_model} ({config.model_type or 'no model_type'}) brings code of its own, which is never "
            "run here; use a base whose architecture is part of transformers"
        )
    return (
        f"base_model: the architecture {config.model_type!r} of {base_model} is not one that can be trained here; use "
        "a text-generating base that transformers knows"
    )
