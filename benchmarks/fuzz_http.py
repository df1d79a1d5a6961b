"""Raw HTTP against both servers: wrong bytes get one answer or none, never a 500, and never an answer from a body.

    python -m benchmarks.fuzz_http --minutes 10

Requests are put together from valid and malformed pieces, mutated byte by byte, and cut into packets at random. The
answers are parsed with h11: nothing may follow an error. Exits with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h11

from benchmarks.common import Goal, missed_goals, table, write
from benchmarks.server_processes import free_port

LINES = (
    "GET / HTTP/1.1", "POST /what-if HTTP/1.1", "HEAD /metrics HTTP/1.1", "GET /metrics HTTP/1.0", "GET //%00 HTTP/1.1",
    "DELETE /recommendations/x/snooze HTTP/1.1", "POST /api/v1/gpu/allocate HTTP/1.1", "OPTIONS * HTTP/1.1",
    "GET /page/check?item=%ff&kind=%F0%9F%98%80 HTTP/1.1", "POST /-/release HTTP/1.1", "GET /static/../../x HTTP/1.1",
    "GET http://127.0.0.1/-/healthy HTTP/1.1", "TRACE / HTTP/1.1", "GET /recommendations?page=1e9 HTTP/1.1",
)  # fmt: skip
FIELDS = (
    "Host: 127.0.0.1", "Host: evil", "Content-Length: 5", "Content-Length: 0", "Content-Length: -1",
    "Connection: close", "Content-Length: 5, 5",
    "Transfer-Encoding: chunked", "Transfer-Encoding : chunked", "Transfer-Encoding: gzip",
    "Content-Type: application/json", "Expect: 100-continue", "Authorization: Basic %%%", "Authorization: Bearer \xff",
    "Origin: null", "Sec-Fetch-Site: cross-site", "X:" + "a" * 300, " folded", "Accept-Encoding: gzip", "Cookie: \x01",
    "If-None-Match: \"", "Range: bytes=0-0,1-1", "Accept: text/html", "Content-Length: 99999999999999999999",
)  # fmt: skip
BODIES = (
    b"", b"hello", b"{}", b'{"gpu_count":1}', b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"ffffffffff\r\n", b"[" * 2000,
)  # fmt: skip


def draw(chance: random.Random) -> bytes:
    """The bytes of one connection."""
    lines = [chance.choice(LINES), "Host: 127.0.0.1", *chance.choices(FIELDS, k=chance.randrange(6))]
    end = chance.choice(["\r\n"] * 8 + ["\n", "\r"])
    data = bytearray(end.join([*lines, "", ""]).encode("latin-1") + chance.choice(BODIES))
    for _ in range(chance.choice((0, 0, 1, 3, 20))):
        at = chance.randrange(len(data))
        if chance.random() < 0.5:
            data[at] = chance.randrange(256)
        else:
            del data[at]
    return bytes(data)


def answers(address: tuple[str, int], data: bytes, chance: random.Random) -> bytes:
    """All that the server sends until it closes the connection."""
    with socket.create_connection(address, timeout=30) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found = b""
        try:
            for _ in range(chance.randrange(3)):
                cut = chance.randrange(len(data) + 1)
                client.sendall(data[:cut])
                data = data[cut:]
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while part := client.recv(65536):
                found += part
        except TimeoutError:
            raise
        except OSError:  # the server has closed the connection
            return found
        return found


def verdict(sent: bytes, received: bytes) -> str:
    """What is wrong with the answers; else the last status."""
    client, last = h11.Connection(h11.CLIENT), "none"
    methods = [b"HEAD" if sent.lstrip(b"\r\n").startswith(b"HEAD ") else b"GET"]
    client.send(h11.Request(method=methods[0], target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(received)
    client.receive_data(b"")
    try:
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                last = str(event.status_code)
                if event.status_code >= 500 and event.status_code not in (501, 503, 505):
                    return f"WRONG: {last}"
            elif event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                break
    except h11.RemoteProtocolError as error:
        if received.startswith(b"HTTP/1.1 100 ") and received.count(b"HTTP/1.1 ") == 1:
            return "100"  # and then the client ended its half of the connection
        return f"WRONG: no HTTP: {error}" if received else last
    if last.startswith("4") and client.trailing_data[0] and b"onnection: close" in received.partition(b"\r\n\r\n")[0]:
        return "WRONG: an answer after an error"
    return last


def fuzz(address: tuple[str, int], until: float, seed: int, counts: Counter[str], kept: list[bytes]) -> None:
    chance = random.Random(seed)
    while time.monotonic() < until:
        data = draw(chance)
        try:
            found = verdict(data, answers(address, data, chance))
        except TimeoutError:
            found = "WRONG: no end within 30 s"
        except ConnectionRefusedError:
            found = "WRONG: refused"
        counts[found] += 1
        if found.startswith("WRONG") and len(kept) < 10:
            kept.append(data)


def advisor_command(folder: Path, port: int) -> list[str]:
    path = folder / "advisor.yml"
    path.write_text(
        f'state_dir: {folder}/state\nsource: {{prometheus: {{url: "http://127.0.0.1:9", retries: 0}}}}\n'
        f'web: {{listen_address: "127.0.0.1:{port}"}}\n'
    )
    return [sys.executable, "-m", "gpu_advisor", "serve", "--config", str(path)]


def exporter_command(_folder: Path, port: int) -> list[str]:
    return [
        sys.executable, "-m", "gpu_exporter", "--simulate", "2xT4-16GB:training", "--web.enable-lifecycle",
        "--web.listen-address", f"127.0.0.1:{port}",
    ]  # fmt: skip


def run(command: Callable[[Path, int], list[str]], minutes: float, seed: int) -> tuple[Counter[str], list[bytes], int]:
    """Counts of answers, the requests of wrong ones, and the bytes of the log."""
    counts: Counter[str] = Counter()
    kept: list[bytes] = []
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        log = folder / "log"
        with log.open("wb") as out, subprocess.Popen(command(folder, port), stdout=out, stderr=out) as process:
            try:
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline:
                    with socket.socket() as probe:
                        if probe.connect_ex(("127.0.0.1", port)) == 0:
                            break
                    time.sleep(0.1)
                until = time.monotonic() + 60 * minutes
                threads = [
                    threading.Thread(target=fuzz, args=(("127.0.0.1", port), until, seed + n, counts, kept))
                    for n in range(2)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                if process.poll() is not None:
                    counts["WRONG: the program ended"] += 1
            finally:
                process.terminate()
                process.wait(30)
        return counts, kept, log.stat().st_size


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_http", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of each server; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    found: dict[str, Any] = {}
    against = []
    for name, command in (("advisor", advisor_command), ("exporter", exporter_command)):
        counts, kept, log_bytes = run(command, options.minutes, options.seed)
        wrong = {what: count for what, count in counts.items() if what.startswith("WRONG")}
        print(name)
        print(table([["answer", "connections"], *([what, str(count)] for what, count in sorted(counts.items()))]))
        for data in kept:
            print(repr(data))
        found[name] = {"answers": dict(counts), "log_bytes": log_bytes}
        against.append(Goal(f"{name}: no 500 and no second answer", not wrong, f"{sum(counts.values())} connections"))
        against.append(Goal(f"{name}: log below 1 MiB", log_bytes < 1 << 20, f"{log_bytes} bytes"))
    print("\n".join(map(str, against)))
    document = {"minutes": options.minutes, "servers": found, "goals": [vars(goal) for goal in against]}
    print(f"written: {write('fuzz_http', document)}")
    return 1 if missed_goals(against) else 0


if __name__ == "__main__":
    sys.exit(main())
