"""`tuneloom models` against a real registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import PROOF, Say, World
from tuneloom.registry.v1 import builds_pb2, versions_pb2
from tuneloom.registry.v1 import registry_pb2 as pb
from tuneloom.registry.v1.registry_pb2_grpc import RegistryServiceServicer
from tuneloom_common.errors import Aborted, InvalidArgument, NotFound
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import FileEntry, Manifest


def test_nothing_is_cut_however_narrow_the_terminal(world: World, say: Say) -> None:
    long = "a-model-with-a-name-that-is-much-longer-than-any-narrow-terminal-is"[:63]
    made = world.model(long)
    listed = say("models", "list").output
    assert long in listed.splitlines()[1]
    assert "default → 1" in listed.splitlines()[1]
    versions = say("models", "versions", long).output.splitlines()
    assert versions[0].split() == ["version", "kind", "size", "created", "aliases", "digest"]
    assert versions[1].split()[-1] == made.digest
    shown = say("models", "show", long).output
    assert f"sha256:{made.digest}" in shown.splitlines()


def test_listings_are_json_when_asked(world: World, say: Say) -> None:
    base = world.model("seed")
    adapter = world.model("helper", Kind.ADAPTER, base=base)
    [helper, seed] = json.loads(say("models", "list", "--json").output)
    assert (helper["id"], helper["name"], helper["aliases"]) == ("helper", "models/helper", {"default": 1})
    assert (seed["latest_version"], seed["training_job"]) == (1, "")
    assert seed["create_time"].endswith("Z")
    [version] = json.loads(say("models", "versions", "helper", "--json").output)
    assert version == {
        "name": "models/helper/versions/1",
        "parent": "models/helper",
        "version": 1,
        "kind": "adapter",
        "digest": adapter.digest,
        "engine_name": f"helper--{adapter.digest[:12]}",
        "size_bytes": 4,
        "aliases": ["default"],
        "create_time": version["create_time"],
    }
    shown = json.loads(say("models", "show", "helper", "--json").output)
    assert shown["manifest"]["base"] == {"model": "seed", "digest": base.digest}
    assert {key: shown[key] for key in version} == version


def test_versions_of_what_does_not_exist(world: World, say: Say) -> None:
    with pytest.raises(NotFound, match=r"models/ghost does not exist.*tuneloom models list"):
        say("models", "versions", "ghost")
    with pytest.raises(NotFound):
        say("models", "show", "ghost")


def test_an_alias_is_moved_and_moved_back(world: World, say: Say) -> None:
    world.model("seed")
    world.model("seed", salt="2")
    assert say("models", "alias", "seed", "default", "2", "--expect", "1").output == "seed@default → version 2\n"
    assert json.loads(say("models", "show", "seed", "--json").output)["version"] == 2
    with pytest.raises(Aborted, match="points to version 2"):
        say("models", "alias", "seed", "default", "1", "--expect", "1")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "hf"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"weights")
    (directory / "tokenizer.json").write_text('{"added_tokens": []}')
    (directory / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}", "eos_token": "</s>"}')
    return directory


def test_a_second_import_says_what_the_name_means(world: World, say: Say, source: Path) -> None:
    first = say("models", "import", "mine", str(source)).output
    assert "models/mine/versions/1" in first
    assert "mine means this version. Next: tuneloom chat mine" in first
    (source / "config.json").write_text("{ }")
    second = " ".join(say("models", "import", "mine", str(source)).output.split())
    assert "models/mine/versions/2" in second
    assert "mine alone still means another version: tuneloom models alias mine default 2 (or --default" in second
    (source / "config.json").write_text("{  }")
    assert "mine means this version" in say("models", "import", "mine", str(source), "--default").output
    assert json.loads(say("models", "show", "mine", "--json").output)["version"] == 3


def test_an_import_names_each_file_and_its_size(world: World, say: Say, source: Path) -> None:
    lines = say("models", "import", "mine", str(source)).output.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["config.json", "model.safetensors"]


def test_a_directory_that_is_no_model_is_refused(world: World, say: Say, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"config\.json"):
        say("models", "import", "mine", str(tmp_path))
    with pytest.raises(NotFound, match="neither a directory nor a hub name"):
        say("models", "import", "mine", "./nowhere")


class MergingRegistry(RegistryServiceServicer):
    """Knows one adapter, and merges it in three looks; `error` makes it fail."""

    def __init__(self, error: str = "") -> None:
        self.error = error
        self.asked: list[pb.CreateBuildRequest] = []
        self.looks = 0

    async def ResolveVersion(self, request: pb.ResolveVersionRequest, context: Any) -> versions_pb2.Version:
        kind = Kind.MERGED if request.reference.endswith("/2") else Kind.ADAPTER
        file = FileEntry(path="a", size=1, sha256="0" * 64)
        manifest = Manifest(kind=kind, files=(file,), proof=PROOF if kind is Kind.MERGED else None)
        return versions_pb2.Version(
            name=f"models/helper/versions/{2 if kind is Kind.MERGED else 1}",
            digest=manifest.digest,
            manifest_json=manifest.canonical().decode(),
        )

    async def CreateBuild(self, request: pb.CreateBuildRequest, context: Any) -> builds_pb2.Build:
        self.asked.append(request)
        return builds_pb2.Build(name="builds/build-1", state=builds_pb2.BUILD_STATE_QUEUED)

    async def GetBuild(self, request: Any, context: Any) -> builds_pb2.Build:
        self.looks += 1
        if self.looks < 3:
            return builds_pb2.Build(name=request.name, state=builds_pb2.BUILD_STATE_RUNNING, progress="merged 1 of 9")
        if self.error:
            return builds_pb2.Build(name=request.name, state=builds_pb2.BUILD_STATE_FAILED, error=self.error)
        return builds_pb2.Build(
            name=request.name, state=builds_pb2.BUILD_STATE_SUCCEEDED, result_version="models/helper/versions/2"
        )


def test_a_merge_is_followed_to_its_proof(world: World, say: Say) -> None:
    registry = MergingRegistry()
    world.play_registry(registry)
    said = say("models", "merge", "helper", "--max-shard-size", "5MB", "--prompt", "hi", "--alias", "whole").output
    assert said.count("merged 1 of 9") == 1
    assert "models/helper/versions/2  100.0% greedy agreement over 99 tokens" in said
    assert "tuneloom chat helper@whole" in said
    [request] = registry.asked
    assert (request.build.target_model, list(request.build.target_aliases)) == ("models/helper", ["whole"])
    assert request.build.merge.max_shard_size_bytes == 5_000_000
    assert list(request.build.merge.proof_prompts) == ["hi"]


def test_a_refused_merge_fails_with_its_reason(world: World, say: Say) -> None:
    world.play_registry(MergingRegistry("only 71 % [of] tokens agree"))
    said = say("models", "merge", "helper", fails=True).output
    assert "only 71 % [of] tokens agree" in said
