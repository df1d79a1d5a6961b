"""Servers on disk: what is read back is what the advisor would have read, and a file may be cut off anywhere."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from benchmarks.serving import watched_servers
from benchmarks.serving.draw import healthy
from benchmarks.serving.records import append_record, drop_cut_off, read_records
from benchmarks.serving.watched_servers import STEP_SCRAPES, packed_servers, simulate, unpack
from benchmarks.serving.windows import watch
from benchmarks.serving_healthy import decide_windows

#: The seed of a healthy server of few requests, and for how many hours it is watched.
KEY = (20005, 0.25)


@cache
def record() -> bytes:
    return simulate(KEY)


def test_the_advisor_decides_the_same_on_what_was_kept() -> None:
    server = unpack(record())
    assert server is not None
    whole = watch(healthy(KEY[0]), server.windows)
    for kept, full in zip(server.watched.samples, whole.samples, strict=True):
        assert kept[::STEP_SCRAPES] == full[::STEP_SCRAPES]
        assert [each.values["num_requests_running"] for each in kept] == [
            each.values["num_requests_running"] for each in full
        ]
    on_kept, on_whole = (list(decide_windows(server.situation, each, 3)) for each in (server.watched, whole))
    assert on_kept == on_whole
    assert len(on_kept) == 2


def test_a_server_that_is_not_healthy_is_kept_as_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    situation = healthy(KEY[0])
    monkeypatch.setattr(watched_servers, "healthy", lambda _seed: replace(situation, ttft=1e-3))
    assert unpack(simulate(KEY)) is None


@pytest.mark.parametrize("kept", [0, 1, 3, 4, 10])
def test_a_file_that_was_cut_off_loses_the_last_record(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "runs"
    append_record(path, b"first")
    whole = path.stat().st_size
    append_record(path, b"second")
    with path.open("rb+") as file:
        file.truncate(whole + kept)
    whole_records = [b"first", *([b"second"] if kept == 10 else [])]
    assert list(read_records(path)) == whole_records
    drop_cut_off(path)
    append_record(path, b"third")
    assert list(read_records(path)) == [*whole_records, b"third"]


def test_servers_of_a_file_are_read_and_the_others_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_servers, "Pool", _OwnProcess)
    path = tmp_path / "runs"
    append_record(path, record())
    other = (KEY[0] + 1, 0.0)
    monkeypatch.setattr(watched_servers, "simulate", lambda key: pickle.dumps((key,)))
    assert list(packed_servers(None, path, 1)) == [record()]
    assert len(list(packed_servers([KEY, other], path, 1))) == 2
    assert [watched_servers._key_of(each) for each in read_records(path)] == [KEY, other]
    assert list(packed_servers([other], path, 1)) == list(read_records(path))[1:]


class _OwnProcess:
    def __init__(self, _workers: int) -> None:
        pass

    def __enter__(self) -> _OwnProcess:
        return self

    def __exit__(self, *_raised: object) -> None:
        pass

    imap = staticmethod(map)
