"""`tuneloom models`: list, versions, show, alias, merge, import."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from tuneloom_cli.terminal import JsonOption, out, print_json, print_table, size

if TYPE_CHECKING:
    from tuneloom_cli.clients import Services
    from tuneloom_client.builds import Build
    from tuneloom_client.versions import Version

app = typer.Typer(help="Look at models, move aliases, merge, import.", no_args_is_help=True)
NameArgument = Annotated[str, typer.Argument(help="name, name@alias, name:version or name@sha256:digest.")]


@app.command("list")
def list_(
    jobs: Annotated[bool, typer.Option("--jobs", help="Also the live checkpoints of jobs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the models and where their aliases point."""
    from tuneloom_cli import shapes
    from tuneloom_cli.clients import run

    models = run(lambda services: services.registry.models(include_training_jobs=jobs))
    if as_json:
        print_json([shapes.model(model) for model in models])
        return
    print_table(
        ("model", "versions", "aliases"),
        (
            (
                model.id,
                str(model.latest_version),
                ", ".join(f"{alias} → {number}" for alias, number in sorted(model.aliases.items())),
            )
            for model in models
        ),
    )


@app.command()
def versions(
    model: Annotated[str, typer.Argument(help="Model, for example assistant.")], as_json: JsonOption = False
) -> None:
    """List a model's versions, newest first."""
    from tuneloom_cli import shapes
    from tuneloom_cli.clients import run

    found = run(lambda services: services.registry.versions(f"models/{model.removeprefix('models/')}"))
    if as_json:
        print_json([shapes.version(version) for version in found])
        return
    print_table(
        ("version", "kind", "size", "created", "aliases", "digest"),
        (
            (
                str(version.name.number),
                version.kind or "unknown",
                size(version.size_bytes),
                f"{version.create_time:%Y-%m-%d %H:%M}",
                ", ".join(version.aliases) or "-",
                version.digest,
            )
            for version in found
        ),
    )


@app.command()
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show one version: digest, lineage, proof, files."""
    from tuneloom_cli import shapes
    from tuneloom_cli.clients import run

    version = run(lambda services: services.registry.resolve(name))
    if as_json:
        print_json(shapes.version_with_manifest(version))
        return
    out.print(f"[bold]{version.name}[/]  {version.kind or 'unknown kind'}  {size(version.size_bytes)}", soft_wrap=True)
    out.print(f"sha256:{version.digest}", soft_wrap=True)
    if version.aliases:
        out.print(f"aliases: {', '.join(version.aliases)}", soft_wrap=True)
    print_json(json.loads(version.manifest_json))


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
    from tuneloom_cli.clients import run

    run(lambda services: services.registry.set_alias(f"models/{model}", alias, version, expected=expect))
    out.print(f"{model}@{alias} → version {version}")


@app.command()
def merge(
    name: NameArgument,
    max_shard_size: Annotated[str, typer.Option(help="Largest weight file, for example 2GB.")] = "2GB",
    prompt: Annotated[list[str] | None, typer.Option(help="Held-out prompt for the proof.")] = None,
    alias: Annotated[str, typer.Option(help="Alias for the merged version.")] = "merged",
) -> None:
    """Fold an adapter into its base, prove that nothing changed, and register the result."""
    from rich.markup import escape

    from tuneloom_cli.clients import run
    from tuneloom_cli.options import parse_size
    from tuneloom_client.builds import BuildState, MergeSpec

    shard_bytes = parse_size(max_shard_size)

    async def build(services: Services) -> tuple[Build, Version | None]:
        adapter = await services.registry.resolve(name)
        wanted = MergeSpec(str(adapter.name), max_shard_size_bytes=shard_bytes, proof_prompts=tuple(prompt or ()))
        build = await services.registry.create_build(wanted, target_model=adapter.name.parent, aliases=[alias])
        ended = await _followed(services, build)
        made = ended.state is BuildState.SUCCEEDED
        return ended, await services.registry.resolve(ended.result_version) if made else None

    ended, merged = run(build)
    if merged is None:
        out.print(f"[red]✗[/] {escape(ended.error or f'the merge was {ended.state}')}", soft_wrap=True)
        raise typer.Exit(1)
    out.print(f"[green]✓[/] {merged.name}  {_proof(merged)}", soft_wrap=True)
    out.print(f"Next: [bold]tuneloom chat {merged.name.id}@{alias}[/]")


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="Name for the model.")],
    source: Annotated[str, typer.Argument(help="Hugging Face model directory, or a hub name such as org/model.")],
    default: Annotated[
        bool, typer.Option("--default", help="Let the name mean this version, whatever it means now.")
    ] = False,
) -> None:
    """Store a base model, from a directory or a hub. Further imports are further versions of the same name."""
    from tuneloom_cli.artifacts import locate, upload_base
    from tuneloom_cli.clients import run
    from tuneloom_common.names import DEFAULT_ALIAS

    directory = locate(source)

    async def store(services: Services) -> Version:
        aliases = (DEFAULT_ALIAS,) if default else ()
        return await upload_base(services.registry, name, directory, aliases=aliases, on_file=_FilesSent())

    version = run(store)
    out.print(f"{version.name}  sha256:{version.digest[:12]}  {size(version.size_bytes)}", soft_wrap=True)
    if DEFAULT_ALIAS in version.aliases:
        out.print(f"{name} means this version. Next: [bold]tuneloom chat {name}[/]")
        return
    number = version.name.number
    out.print(
        f"{name} alone still means another version: [bold]tuneloom models alias {name} default {number}[/] (or "
        f"--default at the import) changes that, [bold]{name}:{number}[/] names this one",
        soft_wrap=True,
    )


class _FilesSent:
    """Tells each file as it begins, and large ones at every tenth."""

    def __init__(self) -> None:
        self._told: tuple[str, int] = ("", 0)

    def __call__(self, name: str, total: int, sent: int) -> None:
        tenth = 10 * sent // max(1, total)
        if self._told[0] != name:
            out.print(f"[dim]{name}  {size(total)}[/]", soft_wrap=True)
        elif tenth > self._told[1] and total > 100_000_000 and sent < total:
            out.print(f"[dim]{name}  {tenth}0%[/]", soft_wrap=True)
        self._told = (name, tenth)


async def _followed(services: Services, build: Build) -> Build:
    """The build at its end; what it does meanwhile is told."""
    if out.is_terminal:
        with out.status(build.id) as status:
            return await services.registry.ended(build, on_change=lambda now: status.update(f"{now.id} {now.progress}"))
    told = {""}

    def tell(now: Build) -> None:
        if now.progress not in told:
            told.add(now.progress)
            out.print(now.progress, markup=False, soft_wrap=True)

    return await services.registry.ended(build, on_change=tell)


def _proof(version: Version) -> str:
    proof = version.manifest.proof
    if proof is None:
        return ""
    return (
        f"{proof.greedy_agreement:.1%} greedy agreement over {proof.positions} tokens, largest logit difference "
        f"{proof.max_logit_diff:.2g}"
    )
