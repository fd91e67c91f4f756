from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.engine.conftest import MakeSettings
from tests.unit.engine.fakes import TOKEN
from tuneloom_common.kinds import Kind
from tuneloom_common.settings import load
from tuneloom_engine.launch import Launch, plan
from tuneloom_engine.settings import HostedSettings, HostSettings

NAME = "chat--0123456789ab"


def launch(settings: HostSettings, kind: Kind = Kind.BASE) -> Launch:
    directory, socket, adapters = Path("/cache/digest"), Path("/private/1.sock"), Path("/private/adapters.sock")
    return plan(settings, name=NAME, kind=kind, directory=directory, socket=socket, adapters=adapters)


def option(launch: Launch, name: str) -> str:
    return launch.command[launch.command.index(name) + 1]


def test_a_base_model_takes_adapters_from_the_registry(make_settings: MakeSettings) -> None:
    settings = make_settings(max_lora_rank=32, max_loras=8, max_cpu_loras=4)
    started = launch(settings)
    assert option(started, "--model") == "/cache/digest"
    assert option(started, "--served-model-name") == NAME
    assert option(started, "--uds") == "/private/1.sock"
    assert not {"--host", "--port"} & set(started.command)
    assert option(started, "--max-lora-rank") == "32"
    assert (option(started, "--max-loras"), option(started, "--max-cpu-loras")) == ("8", "8")
    assert started.environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert started.environment["TUNELOOM_ENGINE_SERVES"] == NAME


def test_the_environment_is_what_the_resolver_reads(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in launch(make_settings()).environment.items():
        monkeypatch.setenv(name, value)
    seen = load(HostedSettings)
    assert (seen.adapters_socket, seen.serves) == (Path("/private/adapters.sock"), NAME)


def test_no_token_is_added(make_settings: MakeSettings) -> None:
    """What an engine inherits is tested with a host that runs one."""
    environment = launch(make_settings()).environment
    assert [name for name in environment if name.startswith("TUNELOOM_")] == [
        "TUNELOOM_ENGINE_ADAPTERS_SOCKET",
        "TUNELOOM_ENGINE_SERVES",
    ]
    assert TOKEN not in environment.values()


def test_a_merged_model_takes_none(make_settings: MakeSettings) -> None:
    started = launch(make_settings(), Kind.MERGED)
    assert "--enable-lora" not in started.command
    assert started.environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "0"
    assert not any("TOKEN" in name for name in started.environment)


def test_on_a_cpu(make_settings: MakeSettings) -> None:
    started = launch(make_settings(kv_cache_gib=0.5, threads=3))
    assert option(started, "--kv-cache-memory-bytes") == str(1 << 29)
    assert option(started, "--dtype") == "float32"
    assert "--enforce-eager" in started.command
    assert started.environment["OMP_NUM_THREADS"] == "3"
    assert int(launch(make_settings()).environment["OMP_NUM_THREADS"]) >= 1


def test_on_a_gpu_the_replicas_share_the_memory(make_settings: MakeSettings) -> None:
    started = launch(make_settings(device="gpu", max_replicas=3, gpu_memory_fraction=0.9))
    assert option(started, "--gpu-memory-utilization") == "0.300"
    assert option(started, "--dtype") == "auto"
    assert not {"--enforce-eager", "--kv-cache-memory-bytes"} & set(started.command)
    assert "OMP_NUM_THREADS" not in started.environment


def test_no_engine_runs_code_from_a_model_or_calls_home(make_settings: MakeSettings) -> None:
    started = launch(make_settings())
    assert not [argument for argument in started.command if "trust" in argument]
    assert option(started, "--load-format") == "safetensors"
    assert started.environment["VLLM_RPC_BASE_PATH"] == "/private"
    assert started.environment["HF_HUB_OFFLINE"] == started.environment["VLLM_NO_USAGE_STATS"] == "1"


def test_the_interpreter_is_not_resolved(make_settings: MakeSettings, tmp_path: Path) -> None:
    """A virtual environment's interpreter is a link, and known by where the link lies."""
    (tmp_path / "python").symlink_to("/usr/bin/env")
    started = launch(make_settings(command=(), python=tmp_path / "python"))
    assert started.command[:3] == (str(tmp_path / "python"), "-m", "tuneloom_engine.inside.serve")


def test_more_arguments_come_last(make_settings: MakeSettings) -> None:
    started = launch(make_settings(extra_arguments=("--max-num-seqs", "4")))
    assert started.command[-2:] == ("--max-num-seqs", "4")


def test_a_rank_that_vllm_has_not_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNELOOM_ENGINE_OBJECTS_URL", "memory://")
    monkeypatch.setenv("TUNELOOM_ENGINE_MAX_LORA_RANK", "24")
    with pytest.raises(SystemExit, match="2"):
        load(HostSettings)
    assert "TUNELOOM_ENGINE_MAX_LORA_RANK: " in capsys.readouterr().err
