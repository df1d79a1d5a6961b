"""What exporter and advisor both have, because neither imports the other: the same cases, the same outcome."""

from __future__ import annotations

import ipaddress
import re
from importlib.resources import files
from typing import Any

import pytest
import yaml
from gpu_advisor.evaluation.policies import unseen_errors
from gpu_advisor.web.api import browser_guard as advisor_guard
from gpu_advisor.web.api import guessing as advisor_guessing
from gpu_exporter import browser_guard as exporter_guard
from gpu_exporter.devices.nvidia_xid_codes import FATAL_XIDS
from gpu_exporter.webconfig import guessing as exporter_guessing
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = ["gpu.example"]
OWN_HOSTS = (
    "127.0.0.1", "127.0.0.1:9816", "127.0.0.1.", "10.0.0.1", "[::1]", "[::1]:9816", "[fd00::1]:1", "[fe80::1%25eth0]",
    "::1", "localhost", "LOCALHOST:80", "page.localhost", "gpu.example", "GPU.example.:443",
)  # fmt: skip
OTHER_HOSTS = (
    "evil.example", "evil.example:9816", "gpu.example.evil.example", "localhost.evil.example",
    "127.0.0.1.evil.example", "2130706433", "0x7f.1", "127.1", "1.2.3", "999.0.0.1", "01.0.0.1", "[evil]", "[dead]",
    "[::1", "gpu", "gpu.example:port", "a b", "gpu.example@evil.example",
)  # fmt: skip


def both_know(host: str) -> tuple[bool, bool]:
    return advisor_guard.is_known_host(host, NAMES), not exporter_guard.refusal({"host": host}, NAMES)


@pytest.mark.parametrize(
    ("host", "own"), [*((each, True) for each in OWN_HOSTS), *((each, False) for each in OTHER_HOSTS)]
)
def test_names_of_the_server(host: str, own: bool) -> None:
    assert both_know(host) == (own, own)


HOSTS = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map("[{}]".format),
    st.text("0123456789abcdefx.:[]%-@ ", min_size=1),
)


@settings(max_examples=200)
@given(HOSTS, st.sampled_from(["", ".", ":1", ":99999", ":x"]))
def test_any_host_is_the_same_to_both(host: str, end: str) -> None:
    advisor, exporter = both_know(host + end)
    nameless = not re.split(":", host.strip().strip("[]"), maxsplit=1)[0].strip(".")  # HTTP/1.0 to the exporter
    assert advisor == exporter or nameless


#: Host, Sec-Fetch-Site and Origin of a request that changes something, and whether another site sent it.
REQUESTS = (
    ("10.0.0.1:9816", None, None, False), ("10.0.0.1:9816", "same-origin", None, False),
    ("10.0.0.1:9816", "none", None, False), ("10.0.0.1:9816", " Same-Origin ", None, False),
    ("10.0.0.1:9816", "same-site", None, True), ("10.0.0.1:9816", "cross-site", None, True),
    ("10.0.0.1:9816", "", None, True), ("10.0.0.1:9816", "cross-site", "http://10.0.0.1:9816", True),
    ("10.0.0.1:9816", "same-origin", "https://proxy.example", False),
    ("10.0.0.1:9816", None, "http://10.0.0.1:9816", False), ("10.0.0.1:9816", None, "HTTP://10.0.0.1:9816", False),
    ("10.0.0.1:9816", None, "http://10.0.0.1:9817", True), ("10.0.0.1:9816", None, "http://10.0.0.1", True),
    ("10.0.0.1:9816", None, "http://10.0.0.1:9816/", True), ("10.0.0.1:9816", None, "null", True),
    ("10.0.0.1:9816", None, "", True), ("10.0.0.1:9816", None, "ftp://10.0.0.1:9816", True),
    ("10.0.0.1:9816", None, "http://10.0.0.1:9816.evil.example", True),
    ("10.0.0.1:9816", None, "http://a@10.0.0.1:9816", True),
    ("gpu.example", None, "http://gpu.example", False), ("gpu.example", None, "http://gpu.example:80", False),
    ("gpu.example", None, "https://gpu.example:443", False), ("gpu.example:443", None, "https://gpu.example", False),
    ("[::1]:9816", None, "http://[::1]:9816", False), ("[::1]:9816", None, "http://[::2]:9816", True),
)  # fmt: skip


@pytest.mark.parametrize(("host", "site", "origin", "cross_site"), REQUESTS)
def test_requests_of_other_sites(host: str, site: str | None, origin: str | None, cross_site: bool) -> None:
    fields = {"Host": host, "Sec-Fetch-Site": site, "Origin": origin}
    headers = {name: value for name, value in fields.items() if value is not None}
    assert advisor_guard.is_cross_site("POST", headers) is cross_site
    lower = {name.lower(): value for name, value in headers.items()}
    assert bool(exporter_guard.refusal(lower, NAMES)) is cross_site


ADDRESSES = (
    "10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "fe80::1%eth0", "::1", "@", "",
)  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_that_share_a_limit(address: str) -> None:
    shared = [
        {other for other in ADDRESSES if module.network_of(other) == module.network_of(address)}
        for module in (advisor_guessing, exporter_guessing)
    ]
    assert shared[0] == shared[1]


@settings(max_examples=100)
@given(st.ip_addresses(), st.ip_addresses())
def test_any_two_addresses_share_a_limit_with_both_or_neither(
    one: ipaddress.IPv4Address | ipaddress.IPv6Address, other: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    same = {
        module.network_of(str(one)) == module.network_of(str(other)) for module in (advisor_guessing, exporter_guessing)
    }
    assert len(same) == 1


@pytest.mark.parametrize("module", [advisor_guessing, exporter_guessing], ids=["advisor", "exporter"])
def test_guesses_at_the_same_rate(module: Any) -> None:
    now = [0.0]
    limit = module.GuessLimit(lambda: now[0])
    for number in range(10):
        assert limit.allows("10.0.0.1"), number
        limit.record_wrong("10.0.0.1")
    assert [limit.allows(each) for each in ("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2")] == [False, False, True]
    now[0] = 6.0
    assert limit.allows("10.0.0.1")


def test_the_fatal_xids_are_the_same_everywhere() -> None:
    """In the exporter's catalogue, the advisor's policy, and the mappings of exporters that count Xids."""
    folder = files("gpu_advisor.sources.exporters").joinpath("mappings")
    patterns = {each.name: xid_patterns(yaml.safe_load(each.read_text())) for each in folder.iterdir()}
    counting = {name: found for name, found in patterns.items() if found}
    assert {"gpu_exporter.yaml", "nvidia_gpu_exporter.yaml"} <= counting.keys()
    for name, found in counting.items():
        for pattern in found:
            assert {int(code) for code in pattern.removeprefix("~").split("|")} == set(FATAL_XIDS), name
    assert set(FATAL_XIDS) == unseen_errors.FATAL_XIDS


def xid_patterns(node: object) -> list[str]:
    """The patterns of label xid that select series, anywhere below."""
    if isinstance(node, dict):
        own = [match["xid"]] if isinstance(match := node.get("match"), dict) and "xid" in match else []
        return own + [each for value in node.values() for each in xid_patterns(value)]
    return [each for value in node for each in xid_patterns(value)] if isinstance(node, list) else []
