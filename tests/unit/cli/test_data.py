"""`tuneloom data` and what submitting a file does with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import GOOD_ROW, Say, World
from tuneloom_common.errors import InvalidArgument, NotFound


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_bad_rows_are_named(say: Say, tmp_path: Path) -> None:
    said = say("data", "check", str(write(tmp_path / "rows.jsonl", GOOD_ROW, {})), fails=True).output
    assert "row 2, messages" in said
    assert "1 of 2 rows are good" in said


def test_one_cause_is_one_line_however_many_rows_have_it(say: Say, tmp_path: Path) -> None:
    alpaca = {"instruction": "hi", "output": "hello"}
    mute = {"messages": [{"role": "user", "content": "hi"}]}
    said = say("data", "check", str(write(tmp_path / "r.jsonl", *[alpaca] * 20, *[mute] * 30)), fails=True).output
    causes = [line for line in said.splitlines() if line.startswith("✗")]
    assert len(causes) == 2
    assert any("(30 rows: 21, 22, 23, 24, 25, …)" in line for line in causes)


def test_a_report_can_be_read_by_a_program(say: Say, tmp_path: Path) -> None:
    report = json.loads(
        say("data", "check", str(write(tmp_path / "r.jsonl", GOOD_ROW, {})), "--json", fails=True).output
    )
    assert (report["passed"], report["rows"], report["bad_rows"]) == (False, 2, 1)
    assert report["errors"][0]["row"] == 2
    assert report["errors"][0]["field"] == "messages"
    good = json.loads(say("data", "check", str(write(tmp_path / "g.jsonl", GOOD_ROW)), "--json").output)
    assert (good["passed"], good["errors"], good["trained_turns"]) == (True, [], 1)


def test_what_is_no_file_is_said(say: Say, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"gone\.jsonl does not exist"):
        say("data", "check", str(tmp_path / "gone.jsonl"))
    with pytest.raises(InvalidArgument, match="is a directory"):
        say("data", "check", str(tmp_path))


def test_an_upload_becomes_a_version_and_is_listed(world: World, say: Say) -> None:
    file = world.dataset("faq")
    said = say("data", "upload", str(file), "--name", "questions").output
    assert "datasets/questions/versions/1" in said
    assert "--data datasets/questions --output NAME" in said
    assert say("data", "upload", str(world.dataset("faq", rows=3)), "-n", "questions").exit_code == 0
    assert say("data", "list").output.splitlines()[1].split()[:2] == ["datasets/questions", "2"]
    [listed] = json.loads(say("data", "list", "--json").output)
    assert (listed["id"], listed["name"], listed["latest_version"]) == ("questions", "datasets/questions", 2)


def test_bad_data_is_not_uploaded(world: World, say: Say) -> None:
    file = write(world.directory / "bad.jsonl", {})
    assert "row 1" in say("data", "upload", str(file), fails=True).output
    assert json.loads(say("data", "list", "--json").output) == []


def synth(say: Say, output: Path, *more: str) -> list[Any]:
    arguments = ("self-cognition", "--name", "Nova", "--author", "Acme", "-o", str(output), "--rows", "40")
    say("data", "synth", *arguments, *more)
    return [json.loads(line) for line in output.read_text("utf-8").splitlines()]


def test_synth_writes_rows_that_pass_the_check(say: Say, tmp_path: Path) -> None:
    rows = synth(say, tmp_path / "self.jsonl")
    assert len(rows) == 40
    assert "Nova" in json.dumps(rows)
    assert say("data", "check", str(tmp_path / "self.jsonl")).exit_code == 0


def test_a_mix_may_be_an_array(say: Say, tmp_path: Path) -> None:
    mix = tmp_path / "mix.json"
    mix.write_text(json.dumps([GOOD_ROW] * 3, indent=2))
    rows = synth(say, tmp_path / "self.jsonl", "--mix", str(mix), "--mix-share", "0.5")
    assert sum(row["messages"] == GOOD_ROW["messages"] for row in rows) == 20


def test_a_mix_keeps_what_is_not_trained(say: Say, tmp_path: Path) -> None:
    silent = {"role": "assistant", "content": "no", "weight": 0}
    row = {"messages": [{"role": "user", "content": "hi"}, silent, *GOOD_ROW["messages"]]}
    mix = write(tmp_path / "mix.jsonl", row)
    rows = synth(say, tmp_path / "self.jsonl", "--mix", str(mix), "--mix-share", "0.5")
    assert sum(silent in made["messages"] for made in rows) == 20


@pytest.mark.parametrize(
    ("content", "said"), [('{"foo": 1}\n', "row 1"), ("[", "row 1"), ("", "no rows"), ("\xff\xfe\x00", "mix")]
)
def test_a_mix_that_cannot_be_read_is_named(say: Say, tmp_path: Path, content: str, said: str) -> None:
    mix = tmp_path / "mix.jsonl"
    mix.write_bytes(content.encode("latin-1"))
    with pytest.raises(InvalidArgument, match=said) as caught:
        synth(say, tmp_path / "self.jsonl", "--mix", str(mix))
    assert str(mix) in caught.value.message


def test_a_mix_that_is_not_there_is_named(say: Say, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"gone\.jsonl"):
        synth(say, tmp_path / "self.jsonl", "--mix", str(tmp_path / "gone.jsonl"))


def test_an_empty_name_is_an_error_and_no_traceback(say: Say, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="name"):
        synth(say, tmp_path / "self.jsonl", "--name", " ")
