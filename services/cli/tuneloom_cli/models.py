"""`tuneloom models`: list, show, alias, merge, import."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneloom_cli.console import out

if TYPE_CHECKING:
    from tuneloom.registry.v1 import builds_pb2, registry_pb2, versions_pb2
    from tuneloom_cli.services import Services

app = typer.Typer(help="Look at models, move aliases, merge, import.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="name, name@alias, name:version or name@sha256:digest.")]
POLL_SECONDS = 0.5


@app.command("list")
def list_(
    jobs: Annotated[bool, typer.Option("--jobs", help="Also the live checkpoints of jobs.")] = False,
) -> None:
    """List the models and where their aliases point."""
    from rich.table import Table

    from tuneloom.registry.v1 import registry_pb2
    from tuneloom_cli.services import TIMEOUT_SECONDS, run

    async def fetch(services: Services) -> registry_pb2.ListModelsResponse:
        return await services.registry.ListModels(
            registry_pb2.ListModelsRequest(page_size=1000, include_training_jobs=jobs),
            timeout=TIMEOUT_SECONDS,
        )

    table = Table("model", "versions", "aliases", box=None)
    for model in run(fetch).models:
        aliases = ", ".join(f"{alias} → {number}" for alias, number in sorted(model.aliases.items()))
        table.add_row(model.name.partition("/")[2], str(model.latest_version), aliases)
    out.print(table)


@app.command()
def show(name: NameArgument) -> None:
    """Show one version: digest, lineage, proof, files."""
    from tuneloom.registry.v1 import versions_pb2
    from tuneloom_cli.services import run

    version = run(lambda services: _resolve(services, name))
    kind = versions_pb2.ArtifactKind.Name(version.kind).removeprefix("ARTIFACT_KIND_").lower()
    out.print(f"[bold]{version.name}[/]  {kind}  {version.size_bytes / 1e6:.1f} MB")
    out.print(f"sha256:{version.digest}")
    if version.aliases:
        out.print(f"aliases: {', '.join(version.aliases)}")
    out.print_json(json.dumps(json.loads(version.manifest_json), ensure_ascii=False))


@app.command()
def alias(
    model: Annotated[str, typer.Argument(help="Model, for example assistant.")],
    alias: Annotated[str, typer.Argument(help="Alias, for example default.")],
    version: Annotated[int, typer.Argument(min=1, help="Version number it shall point to.")],
    expect: Annotated[
        int | None, typer.Option(help="Move it only while it points to this version (0: only if new).")
    ] = None,
) -> None:
    """Point an alias to a version. The gateway follows at once; pointing it back is the rollback."""
    from tuneloom.registry.v1 import registry_pb2
    from tuneloom_cli.services import TIMEOUT_SECONDS, run

    async def move(services: Services) -> None:
        await services.registry.SetAlias(
            registry_pb2.SetAliasRequest(
                name=f"models/{model}/aliases/{alias}", version=version, expected_version=expect
            ),
            timeout=TIMEOUT_SECONDS,
        )

    run(move)
    out.print(f"{model}@{alias} → version {version}")


@app.command()
def merge(
    name: NameArgument,
    max_shard_size: Annotated[str, typer.Option(help="Largest weight file, for example 2GB.")] = "2GB",
    prompt: Annotated[list[str] | None, typer.Option(help="Held-out prompt for the proof.")] = None,
    alias: Annotated[str, typer.Option(help="Alias for the merged version.")] = "merged",
) -> None:
    """Fold an adapter into its base, prove that nothing changed, and register the result."""
    from tuneloom.registry.v1 import builds_pb2, registry_pb2
    from tuneloom_cli.services import TIMEOUT_SECONDS, run

    shard_bytes = parse_size(max_shard_size)

    async def request(services: Services) -> builds_pb2.Build:
        adapter = await _resolve(services, name)
        build = builds_pb2.Build(
            merge=builds_pb2.MergeSpec(
                adapter=adapter.name, max_shard_size_bytes=shard_bytes, proof_prompts=prompt or ()
            ),
            target_model=adapter.name.split("/versions")[0],
            target_aliases=[alias],
        )
        created = await services.registry.CreateBuild(
            registry_pb2.CreateBuildRequest(build=build), timeout=TIMEOUT_SECONDS
        )
        return await _finished(services, created)

    build = run(request)
    if build.state != builds_pb2.BUILD_STATE_SUCCEEDED:
        out.print(f"[red]✗[/] {build.error}", markup=True)
        raise typer.Exit(1)
    proof = run(lambda services: _proof(services, build.result_version))
    out.print(f"[green]✓[/] {build.result_version}  {proof}")
    model = build.target_model.partition("/")[2]
    out.print(f"Next: [bold]tuneloom chat {model}@{alias}[/]")


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="Name for the model.")],
    source: Annotated[str, typer.Argument(help="Hugging Face model directory, or a hub name such as org/model.")],
) -> None:
    """Store a base model, from a directory or a hub."""
    from tuneloom_cli.services import run
    from tuneloom_cli.uploads import upload_base

    directory = locate(source)
    version = run(lambda services: upload_base(services, name, directory, lambda file: out.print(f"[dim]{file}[/]")))
    out.print(f"{version.name}  sha256:{version.digest[:12]}  {version.size_bytes / 1e6:.1f} MB")


def locate(source: str) -> Path:
    """A local directory for a directory or a hub name; raises NotFound saying what to do."""
    from tuneloom_common.errors import NotFound

    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise NotFound(f"{source} is neither a directory nor a hub name such as Qwen/Qwen2.5-0.5B-Instruct")
    try:
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(source, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"])
        )
    except ImportError:
        raise NotFound(f"{source}: install huggingface_hub to fetch models from a hub") from None
    except Exception as error:
        raise NotFound(
            f"{source} cannot be fetched from the hub ({type(error).__name__}); check the name and the network, or "
            "give a local directory"
        ) from None


def parse_size(text: str) -> int:
    """Bytes from "2GB", "500MB" or a plain number."""
    from tuneloom_common.errors import InvalidArgument

    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "": 1}
    number = text.upper().rstrip("KMGB")
    unit = text.upper()[len(number) :]
    try:
        size = int(float(number) * units[unit])
    except (ValueError, KeyError):
        raise InvalidArgument(f"--max-shard-size {text}: write it as 2GB, 500MB or a number of bytes") from None
    if size <= 0:
        raise InvalidArgument(f"--max-shard-size {text}: must be positive")
    return size


async def _resolve(services: Services, name: str) -> versions_pb2.Version:
    from tuneloom.registry.v1 import registry_pb2
    from tuneloom_cli.services import TIMEOUT_SECONDS

    return await services.registry.ResolveVersion(
        registry_pb2.ResolveVersionRequest(reference=name), timeout=TIMEOUT_SECONDS
    )


async def _finished(services: Services, build: builds_pb2.Build) -> builds_pb2.Build:
    from tuneloom.registry.v1 import builds_pb2, registry_pb2
    from tuneloom_cli.services import TIMEOUT_SECONDS

    with out.status(f"{build.name}") as status:
        while build.state in (builds_pb2.BUILD_STATE_QUEUED, builds_pb2.BUILD_STATE_RUNNING):
            await asyncio.sleep(POLL_SECONDS)
            build = await services.registry.GetBuild(
                registry_pb2.GetBuildRequest(name=build.name), timeout=TIMEOUT_SECONDS
            )
            status.update(f"{build.name} {build.progress}")
    return build


async def _proof(services: Services, name: str) -> str:
    version = await _resolve(services, name)
    proof = json.loads(version.manifest_json)["proof"]
    return (
        f"{proof['greedy_agreement']:.1%} greedy agreement over {proof['positions']} tokens, largest logit difference "
        f"{proof['max_logit_diff']:.2g}"
    )
