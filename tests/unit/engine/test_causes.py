"""Logs as vLLM 0.32 wrote them, with most stack frames left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneloom_engine.causes import MAX_LINE_CHARS, cause_of

ERROR = "(EngineCore pid=1030) ERROR 11-21 13:44:29 [core.py:1510] "
INFO = "(APIServer pid=9) INFO 11-21 13:44:29 [api_server.py:1] "
SECOND_HAND = (
    "Traceback (most recent call last):\n"
    '  File "/x/vllm/v1/engine/utils.py", line 1431, in wait_for_engine_startup\n'
    "    raise RuntimeError(\n"
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n"
)
TRUNCATED = f"""{INFO}Resolved architecture: Qwen2ForCausalLM
{ERROR}EngineCore failed to start.
{ERROR}Traceback (most recent call last):
{ERROR}  File "/x/vllm/v1/engine/core.py", line 1482, in run_engine_core
{ERROR}    with safe_open(st_file, framework="pt") as f:
{ERROR}safetensors._safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata
Process EngineCore:
Traceback (most recent call last):
  File "/x/multiprocessing/process.py", line 314, in _bootstrap
    self.run()
safetensors._safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata
{INFO}something else
{SECOND_HAND}"""
UNKNOWN_TYPE = """Traceback (most recent call last):
  File "/x/pydantic/_internal/_dataclasses.py", line 121, in __init__
    s.__pydantic_validator__.validate_python(ArgsKwargs(args, kwargs), self_instance=s)
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, The checkpoint has model type `nonsense` but Transformers does not recognize it. [type=value_error, \
input_value=ArgsKwargs((), {'model': ...}), input_type=ArgsKwargs]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
WITHOUT_VLLM = "/x/python has no vllm; run 'make install-engine'\n"
KILLED = f"{INFO}Loading\nLoading safetensors checkpoint shards:   0% Completed | 0/1 [00:00<?, ?it/s]\n"


@pytest.mark.parametrize(
    ("text", "status", "sentence"),
    [
        (TRUNCATED, 1, "Error while deserializing header: incomplete metadata"),
        (UNKNOWN_TYPE, 1, "The checkpoint has model type `nonsense` but Transformers does not recognize it"),
        (WITHOUT_VLLM, 1, "/x/python has no vllm; run 'make install-engine'"),
        (KILLED, -9, "SIGKILL ended it, as the kernel does when memory runs out"),
        (KILLED, -11, "SIGSEGV ended it"),
        (KILLED, 1, "it says nothing about the cause"),
        ("", 3, "it says nothing about the cause"),
        (SECOND_HAND, 1, "it says nothing about the cause"),
    ],
)
def test_the_cause_is_one_sentence(tmp_path: Path, text: str, status: int, sentence: str) -> None:
    (tmp_path / "log").write_text(text)
    assert cause_of(tmp_path / "log", status).sentence == sentence


def test_the_lines_are_those_of_the_exception(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(UNKNOWN_TYPE)
    assert cause_of(tmp_path / "log", 1).lines.splitlines() == [
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig",
        "  Value error, The checkpoint has model type `nonsense` but Transformers does not recognize it.",
    ]


def test_a_long_line_is_clipped_and_a_long_log_read_from_its_end(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("ValueError: old\n" + "x\n" * (1 << 20) + "OSError: " + "y" * 9999 + "\n")
    cause = cause_of(tmp_path / "log", 1)
    assert len(cause.lines) == MAX_LINE_CHARS
    assert cause.sentence.startswith("yyy")


def test_a_log_that_is_gone_is_no_trouble(tmp_path: Path) -> None:
    assert cause_of(tmp_path / "log", 1).sentence == "it says nothing about the cause"
