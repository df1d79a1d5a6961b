"""What `report -o`, `optimize` and the others write over: files only, never a device, a pipe or a folder."""

from __future__ import annotations

import os
import pty
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from gpu_advisor.storage.output_file import UnsuitableTargetError, write_output
from gpu_advisor.storage.private_files import create_private_file, make_private_folder
from gpu_advisor.storage.sqlite import open_database

TEXT = "öne\ntwo\n"


def read_in_background(path: Path) -> tuple[threading.Thread, list[bytes]]:
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    thread.start()
    return thread, found


def mode(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("bits", [0o600, 0o640, 0o644, 0o755, 0o444])
def test_a_file_is_replaced_and_keeps_its_mode(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "report.html"
    path.write_text("old, and longer than the new one")
    path.chmod(bits)
    before = path.stat()
    with path.open() as reader:
        write_output(path, TEXT)
        assert reader.read() == "old, and longer than the new one"  # a reader sees the old file or the new, whole
    assert path.read_text(encoding="utf-8") == TEXT
    assert mode(path) == bits
    assert (path.stat().st_uid, path.stat().st_gid) == (before.st_uid, before.st_gid)
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_is_kept_where_that_is_permitted(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    os.chown(path, 12345, 23456)
    write_output(path, TEXT)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_a_new_file_is_readable_for_all(tmp_path: Path) -> None:
    write_output(tmp_path / "new", b"bytes")
    assert (tmp_path / "new").read_bytes() == b"bytes"
    assert mode(tmp_path / "new") == 0o644


def test_a_fifo_is_written_into(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader, found = read_in_background(path)
    write_output(path, TEXT * 50_000)  # more than a pipe holds
    reader.join(30)
    assert found == [(TEXT * 50_000).encode()]
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_character_device_is_written_into() -> None:
    master, slave = pty.openpty()
    try:
        name = Path(os.ttyname(slave))
        write_output(name, "line\n")
        assert os.read(master, 100) == b"line\r\n"
        assert stat.S_ISCHR(name.stat().st_mode)
    finally:
        os.close(master)
        os.close(slave)


def test_folders_and_sockets_are_refused(tmp_path: Path) -> None:
    folder, listener = tmp_path / "folder", socket.socket(socket.AF_UNIX)
    folder.mkdir()
    with listener:
        listener.bind(str(tmp_path / "socket"))
        for path, what in ((folder, "directory"), (tmp_path / "socket", "socket"), (tmp_path, "directory")):
            with pytest.raises(UnsuitableTargetError) as refused:
                write_output(path, TEXT)
            assert what in (refused.value.strerror or "")
    assert folder.is_dir()
    assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)


def test_a_block_device_is_refused_without_being_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_text("the disk")
    real = os.stat

    def as_block_device(what: Any, *arguments: Any, **named: Any) -> os.stat_result:
        found = real(what, *arguments, **named)
        return os.stat_result((stat.S_IFBLK | 0o660, *found[1:])) if str(what) == str(path) else found

    monkeypatch.setattr(os, "stat", as_block_device)
    with pytest.raises(UnsuitableTargetError, match="block device"):
        write_output(path, TEXT)
    assert path.read_text() == "the disk"


@pytest.mark.parametrize("target", ["file", "missing", "fifo", "folder"])
def test_links_are_followed(tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    path, link = tmp_path / "elsewhere" / target, tmp_path / "link"
    link.symlink_to(Path("elsewhere") / target)
    second = tmp_path / "second"
    second.symlink_to(link)
    if target == "file":
        path.write_text("old")
    elif target == "folder":
        path.mkdir()
        with pytest.raises(UnsuitableTargetError):
            write_output(second, TEXT)
        return
    elif target == "fifo":
        os.mkfifo(path)
        reader, found = read_in_background(path)
        write_output(second, TEXT)
        reader.join(30)
        assert found == [TEXT.encode()]
        assert second.is_symlink()
        return
    write_output(second, TEXT)
    assert second.is_symlink()
    assert link.is_symlink()
    assert path.read_text(encoding="utf-8") == TEXT


def test_a_loop_of_links_and_a_missing_folder_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path in (tmp_path / "a", tmp_path / "nowhere" / "file"):
        with pytest.raises(OSError):
            write_output(path, TEXT)


STDOUT = """
import sys
from gpu_advisor.storage.output_file import write_output
print("before", flush=True)
write_output(sys.argv[1], "report\\n")
print("after", flush=True)
"""


@pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("to", ["pipe", "file"])
def test_standard_output_is_written_to_in_order(tmp_path: Path, path: str, to: str) -> None:
    if path == "link":
        (tmp_path / "link").symlink_to("/dev/stdout")
        path = str(tmp_path / "link")
    command = [sys.executable, "-c", STDOUT, path]
    if to == "pipe":
        assert (
            subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60).stdout == b"before\nreport\nafter\n"
        )
        return
    target = tmp_path / "out"
    with target.open("wb") as out:
        subprocess.run(command, check=True, stdout=out, timeout=60)
    assert target.read_bytes() == b"before\nreport\nafter\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_writable_file_in_a_folder_that_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old, and longer")
    tmp_path.chmod(0o500)
    try:
        write_output(path, "new")
    finally:
        tmp_path.chmod(0o700)
    assert path.read_text() == "new"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_output(path, TEXT)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_state_is_for_its_user_only(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        database = tmp_path / "a" / "b" / "ledger.db"
        connection = open_database(database)
        connection.execute("CREATE TABLE t (x)")
        files = sorted(database.parent.iterdir())
        assert [each.name for each in files] == ["ledger.db", "ledger.db-shm", "ledger.db-wal"]
        assert {mode(each) for each in files} == {0o600}
        assert {mode(folder) for folder in (tmp_path / "a", tmp_path / "a/b")} == {0o700}
        connection.close()
        database.chmod(0o664)
        open_database(database).close()
        assert mode(database) == 0o600
    finally:
        os.umask(umask)


def test_private_files_and_folders_are_no_pipes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="regular"):
        create_private_file(tmp_path / "fifo")
    with pytest.raises(OSError):
        make_private_folder(tmp_path / "fifo")
