"""The command line without services: options, files, ports, help, and what it says when nothing runs."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tuneloom.trainer.v1 import jobs_pb2
from tuneloom_cli.app import app
from tuneloom_cli.data import dataset_id
from tuneloom_cli.home import Home, Ports
from tuneloom_cli.models import locate, parse_size
from tuneloom_cli.options import option_names, parse_overrides
from tuneloom_cli.processes import local_services
from tuneloom_cli.up import check_ports, running_pid
from tuneloom_cli.uploads import model_files
from tuneloom_common.errors import FailedPrecondition, InvalidArgument, NotFound


def test_overrides_reach_their_fields() -> None:
    spec = parse_overrides(
        [
            "learning_rate=1e-3",
            "lora.r=8",
            "lora.target_modules=q_proj,v_proj",
            "packing=false",
            "method=full",
            "tuning=full",
        ],
        ["Who are you?"],
    )
    assert spec.learning_rate == 1e-3
    assert spec.lora.r == 8
    assert list(spec.lora.target_modules) == ["q_proj", "v_proj"]
    assert spec.HasField("packing")
    assert not spec.packing
    assert spec.method == jobs_pb2.METHOD_FULL
    assert spec.tuning == jobs_pb2.TUNING_FULL
    assert list(spec.sample_prompts) == ["Who are you?"]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("lora.rank=8", "did you mean lora.r?"),
        ("learningrate=1", "did you mean learning_rate?"),
        ("learning_rate", "option=value"),
        ("max_steps=many", "max_steps"),
        ("method=magic", "method"),
        ("zzz=1", "tuneloom jobs recipes"),
    ],
)
def test_a_bad_override_is_named(setting: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said.replace("?", r"\?")):
        parse_overrides([setting])


def test_every_option_can_be_set() -> None:
    assert {"method", "lora.r", "save_steps", "lora.use_rslora"} <= set(option_names())


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2_000_000_000), ("500mb", 500_000_000), ("123", 123), ("1.5KB", 1500)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "two", "2TB", "-1", "0"])
def test_bad_sizes_are_named(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--max-shard-size"):
        parse_size(text)


def test_dataset_ids_come_from_file_names() -> None:
    assert dataset_id(Path("My Data (v2).jsonl")) == "my-data-v2"
    assert dataset_id(Path("数据.jsonl")) == "data"


def test_a_model_directory_needs_a_config_and_safetensors(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"config\.json"):
        model_files(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InvalidArgument, match="safetensors"):
        model_files(tmp_path)
    (tmp_path / "model-00001-of-00001.safetensors").write_bytes(b"")
    (tmp_path / "modeling_custom.py").write_text("")
    assert {path.name for path in model_files(tmp_path)} == {"config.json", "model-00001-of-00001.safetensors"}


@pytest.mark.parametrize("source", ["/nowhere/at/all", "./nowhere", "just-a-name", "a/b/c"])
def test_a_source_that_is_nothing_is_named(source: str) -> None:
    with pytest.raises(NotFound, match="neither a directory nor a hub name"):
        locate(source)


def test_keys_are_private_and_outlive_restarts(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    first = home.prepare(Ports())
    second = home.prepare(Ports(gateway=9999))
    assert (second.api_key, second.service_token) == (first.api_key, first.service_token)
    assert second.gateway.endswith(":9999")
    assert stat.S_IMODE(home.connection_file.stat().st_mode) == 0o600


def test_no_key_is_on_a_command_line_and_the_gateway_gets_a_hash(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    connection = home.prepare(Ports())
    services = local_services(home, connection)
    assert [service.name for service in services] == ["registry", "engine", "trainer", "gateway"]
    for service in services:
        assert connection.api_key not in " ".join(service.command)
        assert connection.service_token not in " ".join(service.command)
        assert connection.api_key not in service.environment.values()


def test_the_environment_wins_over_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOM_TRAINER_SLOTS", "3")
    monkeypatch.setenv("TUNELOOM_ENGINE_CACHE_DIR", "/elsewhere")
    home = Home(tmp_path / "home")
    services = {service.name: service for service in local_services(home, home.prepare(Ports()))}
    assert "TUNELOOM_ENGINE_CACHE_DIR" not in services["engine"].environment


def test_a_taken_port_is_named_with_the_option_that_moves_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        services = local_services(home, home.prepare(Ports(trainer=port)))
        with pytest.raises(FailedPrecondition, match=rf"port {port}, wanted by the trainer.*--trainer-port"):
            check_ports([service for service in services if service.name == "trainer"])


def test_nothing_runs_in_an_empty_home(tmp_path: Path) -> None:
    assert running_pid(Home(tmp_path)) is None
    with pytest.raises(FailedPrecondition, match="tuneloom up"):
        Home(tmp_path).connection()


def test_data_check_names_bad_rows(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    good = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
    file.write_text(json.dumps(good) + "\n{}\n")
    done = CliRunner().invoke(app, ["data", "check", str(file)])
    assert done.exit_code == 1
    assert "row 2, messages" in done.output
    assert "1 of 2 rows are good" in done.output


def test_synth_writes_rows_that_pass_the_check(tmp_path: Path) -> None:
    file = tmp_path / "self.jsonl"
    arguments = [
        "data",
        "synth",
        "self-cognition",
        "--name",
        "Nova",
        "--author",
        "Acme",
        "-o",
        str(file),
        "--rows",
        "40",
    ]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert CliRunner().invoke(app, ["data", "check", str(file)]).exit_code == 0
    assert "Nova" in file.read_text("utf-8")


def test_help_needs_no_heavy_module() -> None:
    code = (
        "import sys; sys.argv = ['tuneloom', '--help']\n"
        "from tuneloom_cli.app import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "assert not {'grpc', 'aiohttp', 'pydantic', 'openai'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def test_two_services_cannot_have_one_port(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with pytest.raises(FailedPrecondition, match="wanted by the engine and the gateway"):
        check_ports(
            local_services(home, home.prepare(Ports(gateway=18999, engine_host=18999, registry=18998, trainer=18997)))
        )


def test_an_exported_port_does_not_split_the_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOM_TRAINER_PORT", "1")
    home = Home(tmp_path / "home")
    services = {service.name: service for service in local_services(home, home.prepare(Ports()))}
    assert services["trainer"].environment["TUNELOOM_TRAINER_PORT"] == "8022"
