"""Uploads local files to the registry: content-addressed, so what is there already is not sent twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tuneloom_cli.services import TIMEOUT_SECONDS, Services
from tuneloom_common.errors import AlreadyExists, InvalidArgument
from tuneloom_common.grpc import translated
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import FileEntry, Manifest, Template
from tuneloom_common.objects import CHUNK_BYTES, hash_file
from tuneloom_data.templates import read_template

if TYPE_CHECKING:
    from tuneloom.registry.v1.versions_pb2 import Version

MODEL_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "tokenizer.model", "chat_template.jinja", "LICENSE", "README.md",
)  # fmt: skip
Progress = Callable[[str], None]


async def upload_dataset(services: Services, name: str, path: Path) -> Version:
    """Uploads a data file as a new version of datasets/{name}, created when it is not there."""
    from tuneloom.registry.v1 import registry_pb2

    with translated("registry"):
        try:
            with translated("registry"):
                await services.registry.CreateDataset(
                    registry_pb2.CreateDatasetRequest(dataset_id=name), timeout=TIMEOUT_SECONDS
                )
        except AlreadyExists:
            pass
        entry = await _upload(services, path, "data.jsonl")
        manifest = Manifest(kind=Kind.DATASET, files=(entry,))
        return await _register(services, f"datasets/{name}", manifest)


async def upload_base(services: Services, name: str, directory: Path, on_file: Progress = lambda _: None) -> Version:
    """Uploads a Hugging Face model directory as a base version of models/{name}."""
    from tuneloom.registry.v1 import registry_pb2

    files = model_files(directory)
    try:
        frozen = read_template(directory)
    except ValueError as error:
        raise InvalidArgument(f"{directory}: {error}") from None
    with translated("registry"):
        try:
            with translated("registry"):
                await services.registry.CreateModel(
                    registry_pb2.CreateModelRequest(model_id=name), timeout=TIMEOUT_SECONDS
                )
        except AlreadyExists:
            pass
        entries = []
        for path in files:
            on_file(path.name)
            entries.append(await _upload(services, path, path.name))
        template = Template(
            tokenizer_sha256=frozen.tokenizer_sha256,
            chat_template_sha256=frozen.chat_template_sha256,
            stop_tokens=frozen.stop_tokens,
        )
        manifest = Manifest(kind=Kind.BASE, files=tuple(entries), template=template)
        return await _register(services, f"models/{name}", manifest)


def model_files(directory: Path) -> list[Path]:
    """The files of a model directory that belong to it; raises InvalidArgument when it is not one."""
    if not (directory / "config.json").is_file():
        raise InvalidArgument(
            f"{directory} is not a Hugging Face model directory: it has no config.json; give a directory that "
            "model.save_pretrained() wrote, or a hub name"
        )
    shards = sorted(directory.glob("model-*-of-*.safetensors"))
    files = [directory / name for name in MODEL_FILES if (directory / name).is_file()] + shards
    if not any(path.suffix == ".safetensors" for path in files):
        raise InvalidArgument(
            f"{directory} has no safetensors weights; save it again with safe_serialization=True (pickle files are "
            "never loaded)"
        )
    return files


async def _upload(services: Services, path: Path, name: str) -> FileEntry:
    from tuneloom.registry.v1 import registry_pb2, versions_pb2

    sha256, size = hash_file(path)

    async def parts() -> AsyncIterator[registry_pb2.UploadBlobRequest]:
        yield registry_pb2.UploadBlobRequest(blob=versions_pb2.Blob(sha256=sha256, size_bytes=size))
        with path.open("rb") as source:
            while chunk := source.read(CHUNK_BYTES):
                yield registry_pb2.UploadBlobRequest(chunk=chunk)

    await services.registry.UploadBlob(parts())
    return FileEntry(path=name, size=size, sha256=sha256)


async def _register(services: Services, parent: str, manifest: Manifest) -> Version:
    from tuneloom.registry.v1 import registry_pb2

    return await services.registry.CreateVersion(
        registry_pb2.CreateVersionRequest(parent=parent, manifest_json=manifest.canonical().decode()),
        timeout=10 * TIMEOUT_SECONDS,
    )
