"""The child that checks files: one report, documented exit statuses, bounds on time, memory and size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tuneloom_data.child import ExitStatus, FileReport, Report, check_command, parse_report
from tuneloom_data.contract import ContractReport, check_file
from tuneloom_data.limits import MIB, Limits

ROW = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
BAD = json.dumps({"messages": [{"role": "user", "content": "a"}]})


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def run(*paths: Path, limits: Limits | None = None) -> tuple[int, Report]:
    done = subprocess.run(check_command(paths, limits), capture_output=True, check=False, text=True)
    assert done.stderr == ""
    return done.returncode, parse_report(done.stdout)


def test_the_childs_report_is_the_one_made_here(tmp_path: Path) -> None:
    good = written(tmp_path / "good.jsonl", f"{ROW}\n{ROW}\n")
    bad = written(tmp_path / "bad.json", f"[{ROW}, {BAD}, 7]")

    status, report = run(good, bad)

    assert status == ExitStatus.REFUSED
    assert [file.path for file in report.files] == [str(good), str(bad)]
    assert [file.report for file in report.files] == [check_file(good), check_file(bad)]
    assert [file.report.passed for file in report.files] == [True, False]


def test_good_files_end_with_zero(tmp_path: Path) -> None:
    status, report = run(written(tmp_path / "-r.jsonl", ROW))

    assert status == ExitStatus.PASSED
    assert report.passed


def test_what_cannot_be_read_is_a_report_and_not_a_traceback(tmp_path: Path) -> None:
    status, report = run(tmp_path / "absent.jsonl", tmp_path)

    assert status == ExitStatus.REFUSED
    assert [file.report.summary().partition(";")[0] for file in report.files] == [
        "cannot be read: No such file or directory",
        "cannot be read: Is a directory",
    ]


def test_wrong_arguments_are_a_status_of_their_own(tmp_path: Path) -> None:
    command = [*check_command([tmp_path / "x"])[:4], "--objective", "dpo", "x"]

    assert subprocess.run(command, capture_output=True, check=False).returncode == ExitStatus.USAGE


def test_the_childs_time_is_limited(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", f"{ROW}\n" * 20_000)

    status, report = run(path, limits=Limits(seconds=0.05))

    assert status == ExitStatus.STOPPED
    assert "the check takes longer than 0.05 s; split the file (after " in report.files[0].report.summary()


@pytest.fixture(scope="module")
def at_rest() -> int:
    """Address space of a child that has read nothing yet, in bytes; it differs from machine to machine."""
    code = "import tuneloom_data.check; print(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return int(done.stdout.partition("VmSize:")[2].split()[0]) * 1024


def test_a_row_that_needs_too_much_memory_is_named_and_the_next_one_read(tmp_path: Path, at_rest: int) -> None:
    path = written(tmp_path / "rows.json", f'[{ROW}, {{"messages": [{"[]," * 3_000_000}[]]}}, {ROW}]')

    status, report = run(path, limits=Limits(memory_bytes=at_rest + 100 * MIB))

    assert status == ExitStatus.REFUSED
    assert report.files[0].report.summary() == (
        "1 of 3 rows cannot be trained on: row 2: needs more memory than a row may; shorten or split it"
    )


def test_a_child_without_room_for_a_row_still_reports(tmp_path: Path, at_rest: int) -> None:
    path = written(tmp_path / "rows.json", f'[{{"messages": "{"x" * 15 * MIB}"}}]')

    status, report = run(path, limits=Limits(memory_bytes=at_rest + 20 * MIB))

    assert status == ExitStatus.STOPPED
    assert "of memory; split the file (after 0 rows)" in report.files[0].report.summary()


def test_a_large_array_takes_little_memory(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.json", f"[{','.join([ROW] * 100)},{','.join([_row_of(20_000)] * 1000)}]")
    assert path.stat().st_size > 20_000_000
    code = (
        "import sys; from tuneloom_data.check import main; status = main(sys.argv[1:]);"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )

    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True, text=True)

    told, peak_kb = done.stdout.splitlines()
    assert told.endswith("all 1100 rows are good")
    assert int(peak_kb) < 40_000


def test_the_child_keeps_nothing_of_its_caller(tmp_path: Path) -> None:
    code = (
        "import os, resource, sys; from tuneloom_data.check import main; main(sys.argv[1:]);"
        "print(len(os.environ), sorted(map(int, os.listdir('/proc/self/fd')))[3:-1], os.umask(0), os.nice(0),"
        " resource.getrlimit(resource.RLIMIT_AS), resource.getrlimit(resource.RLIMIT_CPU)[0],"
        " resource.getrlimit(resource.RLIMIT_CORE))"
    )
    path = written(tmp_path / "rows.jsonl", ROW)

    with path.open() as held:
        done = subprocess.run(
            [sys.executable, "-c", code, "--memory-bytes", "500000000", "--seconds", "20", str(path)],
            capture_output=True,
            check=True,
            text=True,
            pass_fds=[held.fileno()],
        )

    assert done.stdout.splitlines()[1] == "0 [] 63 10 (500000000, 500000000) 30 (0, 0)"


def test_a_report_is_found_behind_other_output() -> None:
    report = Report((FileReport("a.jsonl", ContractReport(rows=1)),))

    assert parse_report(f"a warning\n{report.to_json()}\n") == report


def test_a_report_of_another_release_can_be_read() -> None:
    (file,) = parse_report('{"new": 1, "files": [{"path": "a", "rows": 3, "new": [], "bad_rows": 1}]}').files

    assert (file.report.rows, file.report.bad_rows, file.report.trained_turns) == (3, 1, 0)


@pytest.mark.parametrize("stdout", ["", "\n", "Killed", "[]", '{"files": [{}]}', b"\xff", '{"files": {"a": 1}}'])
def test_no_report_is_a_plain_error(stdout: str | bytes) -> None:
    with pytest.raises(ValueError, match="ended without a report"):
        parse_report(stdout)


def _row_of(characters: int) -> str:
    return json.dumps(
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * characters}]}
    )
