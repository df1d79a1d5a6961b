"""The textfile directory with valid, invalid, large, special and removed files."""

from __future__ import annotations

import importlib
import os
import pkgutil
from pathlib import Path

import pytest
from gpu_exporter import compat, metrics
from gpu_exporter.host import COLLECTORS
from gpu_exporter.jobs import textfile
from gpu_exporter.jobs.textfile import TextfilePage, reserved_name_matcher
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.host.fake_node import make_node

GOOD = "# HELP training_samples_total Samples.\n# TYPE training_samples_total counter\ntraining_samples_total 5\n"


class TextfileFolder:
    def __init__(self, root: Path, *directories: str) -> None:
        self.root = root
        self.page = TextfilePage(directories or (str(root),), reserved_name_matcher(host=True))

    def write(self, name: str, content: str | bytes = GOOD) -> Path:
        """Atomically: written elsewhere, then renamed into place."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.rename(path)
        return path

    def samples(self) -> dict[str, float]:
        self.page.run()
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(self.page.page.decode()):
            for sample in family.samples:
                key = sample.name + "".join(f"|{value}" for value in sample.labels.values())
                assert key not in found, f"{key} comes twice"
                found[key.replace(str(self.root) + "/", "")] = sample.value
        return found

    def errors(self) -> dict[str, str]:
        names = (key.split("|")[1:] for key in self.samples() if key.startswith("gpu_exporter_textfile_error"))
        return {name[0]: name[1] for name in names}


@pytest.fixture
def folder(tmp_path: Path) -> TextfileFolder:
    return TextfileFolder(tmp_path)


def test_a_file(folder: TextfileFolder) -> None:
    os.utime(folder.write("job.prom"), (1, 1700000000.5))
    assert folder.samples() == {
        "training_samples_total": 5,
        "node_textfile_scrape_error": 0,
        "node_textfile_mtime_seconds|job.prom": 1700000000.5,
    }
    assert b"# HELP training_samples_total Samples.\n# TYPE training_samples_total counter\n" in folder.page.page


def test_all_types_are_exposed(folder: TextfileFolder) -> None:
    folder.write(
        "a.prom",
        '# TYPE h histogram\nh_bucket{le="+Inf"} 2\nh_sum 1\nh_count 2\n# TYPE s summary\ns{quantile="0.5"} NaN\n'
        "s_sum 3\ns_count 1\nu 4\n",
    )
    found = folder.samples()
    assert [found[key] for key in ("h_bucket|+Inf", "h_sum", "h_count", "s_sum", "s_count", "u")] == [2, 1, 2, 3, 1, 4]
    assert b"# HELP u Read from a textfile.\n# TYPE u untyped\n" in folder.page.page


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "half": (GOOD[:-3], "truncated"),
    "twice": (GOOD + "training_samples_total 6\n", "duplicate_series"),
    "type": ("# TYPE x float\nx 1\n", "wrong_type"),
    "syntax": ("not metrics at all\n", "syntax"),
    "time": ("x 1 1700000000\n", "timestamp"),
    "bytes": (b'x{a="\xff"} 1\n', "not_utf8"),
    "huge": (b"#" * textfile.MAX_FILE_BYTES + b"\n", "too_large"),
    "device": ('gpu_up{uuid="g"} 1\n', "reserved_name"),
    "self": ("gpu_exporter_build_info 1\n", "reserved_name"),
    "host": ("node_load15 1\n", "reserved_name"),
    "part": ("# TYPE node_load1 summary\nnode_load1_sum 1\n", "reserved_name"),
    "mtime": ('node_textfile_mtime_seconds{file="x"} 1\n', "reserved_name"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_invalid_file_is_reported_and_the_others_exposed(folder: TextfileFolder, name: str) -> None:
    content, reason = BROKEN[name]
    folder.write("a.prom", content)
    folder.write("b.prom", GOOD)
    found = folder.samples()
    assert found == {
        "training_samples_total": 5,
        "node_textfile_scrape_error": 1,
        f"gpu_exporter_textfile_error|a.prom|{reason}": 1,
        "node_textfile_mtime_seconds|b.prom": found["node_textfile_mtime_seconds|b.prom"],
    }
    folder.write("a.prom", "x 1\n")
    assert folder.errors() == {}
    assert folder.samples()["x"] == 1


CONFLICTS = {
    "type": ("# TYPE x gauge\nx 1\n", '# TYPE x counter\nx{a="1"} 1\n', "conflict"),
    "no type": ("# TYPE x gauge\nx 1\n", 'x{a="1"} 1\n', "conflict"),
    "series": ("x 1\n", "y 1\nx 2\n", "duplicate_series"),
    "part after": ("# TYPE x histogram\nx_count 1\n", "x_sum 1\n", "conflict"),
    "part before": ("x_count 1\n", "# TYPE x summary\nx_sum 1\n", "conflict"),
}


@pytest.mark.parametrize("name", CONFLICTS)
def test_later_of_two_conflicting_files_is_skipped(folder: TextfileFolder, name: str) -> None:
    first, second, reason = CONFLICTS[name]
    folder.write("b.prom", second)
    folder.write("a.prom", first)
    assert folder.errors() == {"b.prom": reason}
    assert "y" not in folder.samples(), "a file is served whole or not at all"
    (folder.root / "a.prom").unlink()
    assert folder.errors() == {}


def test_family_in_two_files_is_merged(folder: TextfileFolder) -> None:
    folder.write("a.prom", 'x{job_id="1"} 1\n')
    folder.write("b.prom", '# HELP x Help.\nx{job_id="2"} 2\n')
    assert {key: value for key, value in folder.samples().items() if key[0] == "x"} == {"x|1": 1, "x|2": 2}
    assert folder.page.page.count(b"# TYPE x untyped\n# ") == 0
    assert folder.page.page.count(b"# TYPE x ") == 1
    assert b"# HELP x Help.\n" in folder.page.page


def test_files_with_different_help_have_that_of_the_first(folder: TextfileFolder) -> None:
    """As jobs of two versions of a program write them (prometheus/node_exporter#1885)."""
    folder.write("a.prom", '# HELP x Old text.\nx{job_id="1"} 1\n')
    folder.write("b.prom", '# HELP x New text.\nx{job_id="2"} 2\n')
    assert folder.errors() == {}
    assert {key: value for key, value in folder.samples().items() if key[0] == "x"} == {"x|1": 1, "x|2": 2}
    assert b"# HELP x Old text.\n" in folder.page.page
    assert b"New text" not in folder.page.page


@pytest.mark.parametrize("text", ["# TYPE x gauge\r\nx 1\r\n", "\ufeffx 1\n", "\ufeff# HELP x Help.\r\nx 1\r\n"])
def test_line_ends_and_mark_of_windows(folder: TextfileFolder, text: str) -> None:
    (folder.root / "a.prom").write_bytes(text.encode())
    assert folder.errors() == {}
    assert folder.samples()["x"] == 1
    assert b"\r" not in folder.page.page


def test_files_that_are_not_read(folder: TextfileFolder) -> None:
    folder.write("a.prom.1234", "half")
    folder.write("a.txt", "x 1\n")
    folder.write("below/a.prom", "x 1\n")
    assert folder.samples() == {"node_textfile_scrape_error": 0}


def test_special_files(folder: TextfileFolder) -> None:
    (folder.root / "dir.prom").mkdir()
    os.mkfifo(folder.root / "pipe.prom")
    (folder.root / "null.prom").symlink_to("/dev/null")
    (folder.root / "dangling.prom").symlink_to(folder.root / "nowhere")
    (folder.root / "loop.prom").symlink_to(folder.root / "loop.prom")
    assert folder.errors() == {
        "dir.prom": "not_a_file", "pipe.prom": "not_a_file", "null.prom": "not_a_file", "dangling.prom": "unreadable",
        "loop.prom": "unreadable",
    }  # fmt: skip


def test_file_with_content_and_size_zero(folder: TextfileFolder) -> None:
    """As with procfs: the size is 0, so that a complete read cannot be verified."""
    (folder.root / "a.prom").symlink_to("/proc/self/status")
    assert folder.errors() == {"a.prom": "being_written"}


def test_a_file_that_becomes_a_pipe_before_it_is_opened(folder: TextfileFolder) -> None:
    os.mkfifo(folder.root / "a.prom")
    with pytest.raises(textfile.FileSkipped, match="not_a_file"):
        folder.page._read(str(folder.root / "a.prom"))


def test_links_are_followed(folder: TextfileFolder) -> None:
    """In Kubernetes, the files of a mounted ConfigMap are links."""
    (folder.root / "a.prom").symlink_to(folder.write("..data/a.prom"))
    assert folder.samples()["training_samples_total"] == 5


def test_removed_file(folder: TextfileFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder.write("a.prom")
    assert "training_samples_total" in folder.samples()
    path.unlink()
    assert folder.samples() == {"node_textfile_scrape_error": 0}

    def remove(path: str, flags: int) -> int:
        raise FileNotFoundError(2, "No such file or directory")

    folder.write("a.prom")
    monkeypatch.setattr("gpu_exporter.jobs.textfile.os.open", remove)  # between stat and open
    assert folder.samples() == {"node_textfile_scrape_error": 0}


def test_unreadable_file(folder: TextfileFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    folder.write("a.prom")
    monkeypatch.setattr("gpu_exporter.jobs.textfile.os.open", refuse)
    assert folder.errors() == {"a.prom": "unreadable"}


@pytest.mark.parametrize("length", [len(GOOD), 9])
def test_file_written_during_read(folder: TextfileFolder, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    path = folder.write("a.prom")
    fstat = os.fstat

    def later(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        path.write_text("y 1\n#".ljust(length - 1, "#") + "\n")
        return found

    monkeypatch.setattr("gpu_exporter.jobs.textfile.os.fstat", later)
    folder.page.run()
    monkeypatch.undo()
    assert b'reason="being_written"' in folder.page.page
    assert folder.errors() == {}
    assert "y" in folder.samples()


def test_several_directories_and_patterns(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.prom").write_text(f"{name} 1\n")
    folder = TextfileFolder(tmp_path, str(tmp_path / "o*"), str(tmp_path / "two"), str(tmp_path / "three"))
    found = folder.samples()
    assert found["one"] == found["two"] == 1
    assert folder.errors() == {"three": "unreadable"}
    (tmp_path / "three").mkdir()
    assert folder.errors() == {}


def test_limits(folder: TextfileFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfile, "MAX_TOTAL_BYTES", 12)
    monkeypatch.setattr(textfile, "MAX_FILES", 3)
    for name in "abcd":
        folder.write(f"{name}.prom", f"{name}{name} 1\n")
    folder.page.run()
    assert folder.errors() == {"c.prom": "too_large_together", str(folder.root): "too_many_files"}


def test_unchanged_files_are_not_read_again(folder: TextfileFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(20):
        folder.write(f"{n:02}.prom", f'x{{n="{n}"}} 1\n')
    folder.write("broken.prom", "x 1")
    folder.page.run()
    opened: list[str] = []
    open_ = os.open

    def record(path: str, flags: int) -> int:
        opened.append(path)
        return open_(path, flags)

    monkeypatch.setattr("gpu_exporter.jobs.textfile.os.open", record)
    before = folder.page.page
    folder.page.run()
    assert (opened, folder.page.page) == ([], before)
    folder.write("07.prom", 'x{n="7"} 8\n')
    assert folder.samples()["x|7"] == 8
    assert opened == [str(folder.root / "07.prom")]


def test_names_that_are_not_utf8(folder: TextfileFolder) -> None:
    for name in (b"\xff.prom", b"\xfe.prom"):
        (Path(os.fsdecode(os.fsencode(folder.root) + b"/" + name))).write_text("broken")
    assert list(folder.errors().values()) == ["truncated"]  # equal once decoded, and a series must not occur twice


def families_in(module: str) -> list[metrics.MetricFamily]:
    """The families in the constants of a module of compat/."""
    constants = vars(importlib.import_module(f"{compat.__name__}.{module}")).values()
    in_tuples = [each for constant in constants if isinstance(constant, tuple) for each in constant]
    return [each for each in (*constants, *in_tuples) if isinstance(each, metrics.MetricFamily)]


def test_all_exporter_families_are_reserved(tmp_path: Path) -> None:
    """Fails for a new host collector, or other exporter's names, whose prefix is not on the list."""
    settings = make_node(tmp_path)
    host = {samples.family.name for make in COLLECTORS.values() for samples in make(settings).collect()}
    own = {family.name for family in (*metrics.DEVICE_FAMILIES, *metrics.OWNER_FAMILIES, *metrics.SELF_FAMILIES)}
    own |= {family.name for module in pkgutil.iter_modules(compat.__path__) for family in families_in(module.name)}
    assert {"DCGM_FI_DEV_GPU_UTIL", "nvidia_smi_gpu_info"} <= own
    assert not {name for name in host | own if not reserved_name_matcher(host=True)(name)}
    assert not {name for name in host if reserved_name_matcher(host=False)(name)}
    assert not any(
        reserved_name_matcher(host=True)(name) for name in ("training_x", "node_os_info", "node_reboot_required")
    )
