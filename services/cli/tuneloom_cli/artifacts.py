"""Local files and directories as artifacts: what belongs to them, and their way into the registry."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tuneloom_client.registry import RegistryClient
from tuneloom_client.versions import Version
from tuneloom_common.errors import InvalidArgument, NotFound
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import Manifest, Template
from tuneloom_data.templates import read_template

MODEL_FILES = (
    "config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "tokenizer.model", "chat_template.jinja", "LICENSE", "README.md",
)  # fmt: skip
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")
OnFile = Callable[[str, int, int], None]
"""Hears a file's name, how many bytes it has, and how many of them were sent."""


def _silent(name: str, total: int, sent: int) -> None:
    pass


async def upload_dataset(registry: RegistryClient, name: str, path: Path, on_file: OnFile = _silent) -> Version:
    """Uploads a data file as a new version of datasets/{name}, created when it is not there."""
    await registry.ensure_dataset(f"datasets/{name}")
    sent = partial(on_file, path.name, path.stat().st_size)
    entry = await registry.upload(path, name="data.jsonl", on_bytes=sent)
    return await registry.register(f"datasets/{name}", Manifest(kind=Kind.DATASET, files=(entry,)))


async def upload_base(
    registry: RegistryClient,
    name: str,
    directory: Path,
    *,
    aliases: Sequence[str] = (),
    on_file: OnFile = _silent,
) -> Version:
    """Uploads a Hugging Face model directory as a base version of models/{name}."""
    files = model_files(directory)
    template = _template(directory)
    await registry.ensure_model(f"models/{name}")
    entries = []
    for path in files:
        sent = partial(on_file, path.name, path.stat().st_size)
        sent(0)
        entries.append(await registry.upload(path, on_bytes=sent))
    manifest = Manifest(kind=Kind.BASE, files=tuple(entries), template=template)
    return await registry.register(f"models/{name}", manifest, aliases=aliases)


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


def locate(source: str) -> Path:
    """A local directory for a directory or a hub name; raises NotFound saying what to do."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise NotFound(f"{source} is neither a directory nor a hub name such as Qwen/Qwen2.5-0.5B-Instruct")
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(source, allow_patterns=list(HUB_FILES)))
    except ImportError:
        raise NotFound(f"{source}: install huggingface_hub to fetch models from a hub") from None
    except Exception as error:
        raise NotFound(
            f"{source} cannot be fetched from the hub ({type(error).__name__}); check the name and the network, or "
            "give a local directory"
        ) from None


def dataset_id(file: Path) -> str:
    """A dataset or model id made from a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")[:63] or "data"


def _template(directory: Path) -> Template:
    try:
        frozen = read_template(directory)
    except ValueError as error:
        raise InvalidArgument(f"{directory}: {error}") from None
    return Template(
        tokenizer_sha256=frozen.tokenizer_sha256,
        chat_template_sha256=frozen.chat_template_sha256,
        stop_tokens=frozen.stop_tokens,
    )
