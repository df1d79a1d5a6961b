"""The web configuration file: parsing, TLS on a real socket, users, and reload."""

from __future__ import annotations

import base64
import logging
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import types
from contextlib import suppress
from pathlib import Path

import pytest
from gpu_exporter.webconfig import WebConfig, WebConfigError, WebConfigReloader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers import require_binary

# In the form of hashes, at costs of 4 and 6.
ALICE = "$2y$04$abcdefghijklmnopqrstuuGbKkD2m3bVW7pYkFpIFBi2yJJcYyIEq"
BOB = "$2b$06$abcdefghijklmnopqrstuu" + "B" * 31


class FakeBcrypt(types.ModuleType):
    """The correct password is the last four characters of the hash. Records its calls."""

    def __init__(self) -> None:
        super().__init__("bcrypt")
        self.calls: list[tuple[bytes, bytes]] = []

    def checkpw(self, password: bytes, hashed: bytes) -> bool:
        self.calls.append((password, hashed))
        if b"\0" in password:
            raise ValueError("password may not contain NUL bytes")
        assert len(password) <= 72
        return hashed.endswith(password[:4])

    def gensalt(self, cost: int) -> int:
        return cost

    def hashpw(self, password: bytes, cost: int) -> None:
        """The work that makes all users take as long."""


@pytest.fixture
def bcrypt(monkeypatch: pytest.MonkeyPatch) -> FakeBcrypt:
    module = FakeBcrypt()
    monkeypatch.setitem(sys.modules, "bcrypt", module)
    return module


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "web.yml"


def load(path: Path, text: str) -> WebConfig:
    path.write_text(text)
    return WebConfig.load(path)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


# Parsing


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "{}\n", "tls_server_config:\nbasic_auth_users:\n", "rate_limit: {}\n"]
)
def test_empty_configuration_allows_everything(path: Path, text: str) -> None:
    config = load(path, text)
    assert config.ssl_context() is None
    assert not config.users
    assert config.authorize(None)
    assert config.allow_request()
    assert config.headers == ()


def test_headers(path: Path) -> None:
    config = load(
        path,
        "http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n    X-XSS-Protection: ''\n"
        "    Strict-Transport-Security: max-age=31536000; includeSubDomains\n",
    )
    assert config.headers == (
        ("X-Frame-Options", "deny"),
        ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
    )


TLS = "tls_server_config:\n  cert_file: c\n  key_file: k\n"
WRONG = {
    "tls_server_conf: {}\n": ":1: tls_server_conf: unknown key; did you mean tls_server_config?",
    "x: 1\n": ":1: x: unknown key; known keys: tls_server_config, ",
    "tls_server_config:\n  cert: a\n  certfile: b\n": ":3: tls_server_config.certfile: unknown key; did you mean",
    "rate_limit: {}\nrate_limit: {}\n": ":2: rate_limit: duplicate key",
    "- a\n": ":1: the file: not a mapping",
    "basic_auth_users: [a]\n": ":1: basic_auth_users: not a mapping",
    "basic_auth_users:\n  alice: hunter2\n": ":2: basic_auth_users.alice: not a bcrypt hash; create one with: htpasswd",
    "basic_auth_users:\n  alice: [a]\n": ":2: basic_auth_users.alice: not a string",
    f"basic_auth_users:\n  'a:b': {ALICE}\n": ":2: basic_auth_users.a:b: invalid user name",
    f"basic_auth_users:\n  alice: {ALICE}x\n": ":2: basic_auth_users.alice: not a bcrypt hash",
    "http_server_config:\n  http2: 2\n": ":2: http_server_config.http2: must be true or false",
    "http_server_config:\n  headers:\n    X-Frame-Options: maybe\n": ":3: http_server_config.headers.X-Frame-Options: ",
    "http_server_config:\n  headers:\n    Server: me\n": ":3: http_server_config.headers.Server: unknown key",
    'http_server_config:\n  headers:\n    X-XSS-Protection: "a\\r\\nb: c"\n': ":3: http_server_config.headers.X-XSS",
    "rate_limit:\n  interval: 1\n  burst: 1\n": ":2: rate_limit.interval: '1' is not a duration",
    "rate_limit:\n  interval: 1s\n": ":2: rate_limit.burst: allows no request",
    "rate_limit:\n  interval: 1s\n  burst: few\n": ":3: rate_limit.burst: not an integer",
    "tls_server_config:\n  cert_file: c\n": ":2: tls_server_config: key_file is missing",
    "tls_server_config:\n  min_version: TLS12\n": ":2: tls_server_config: cert_file is missing",
    TLS + "  cert: x\n": ":4: tls_server_config.cert: conflicts with cert_file",
    TLS + "  min_version: TLS14\n": ":4: tls_server_config.min_version: 'TLS14' is not supported; use one of TLS10",
    TLS + "  cipher_suites: [TLS_NONE]\n": ":4: tls_server_config.cipher_suites: 'TLS_NONE' is not supported",
    TLS + "  cipher_suites: TLS_NONE\n": ":4: tls_server_config.cipher_suites: not a list",
    TLS + "  curve_preferences: [CurveP1]\n": ":4: tls_server_config.curve_preferences: 'CurveP1' is not supported",
    TLS + "  client_auth_type: RequireAnyClientCert\n": ":4: tls_server_config.client_auth_type: RequireAnyClient",
    TLS + "  client_auth_type: Maybe\n": ":4: tls_server_config.client_auth_type: 'Maybe' is not supported",
    TLS + "  client_auth_type: RequireAndVerifyClientCert\n": ":4: tls_server_config.client_auth_type: clients",
    TLS + "  client_ca_file: ca\n": ":2: tls_server_config.client_auth_type: client_ca has no effect without it",
    TLS + "  client_allowed_sans: [a]\n": ":4: tls_server_config.client_allowed_sans: requires client_auth_type",
    TLS + "  prefer_server_cipher_suites: 3\n": ":4: tls_server_config.prefer_server_cipher_suites: must be true",
    TLS: ":2: tls_server_config.cert_file: No such file or directory; use a certificate and its key",
    "a: [\n": ":2: not YAML",
    "\tx: 1\n": ":1: not YAML",
    "\0": "not YAML",
}


@pytest.mark.parametrize("text", WRONG)
def test_error_names_place_and_fix(path: Path, text: str) -> None:
    with pytest.raises(WebConfigError) as raised:
        load(path, text)
    assert str(raised.value).startswith(str(path))
    assert WRONG[text] in str(raised.value)
    assert "hunter2" not in str(raised.value), "a password that was not hashed is in the message"


def test_files_that_cannot_be_read(path: Path) -> None:
    with pytest.raises(WebConfigError, match=r"No such file.*--web\.config\.file"):
        WebConfig.load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(WebConfigError, match="UTF-8"):
        WebConfig.load(path)


@given(st.text(max_size=50))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_is_valid_or_rejected(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with suppress(WebConfigError):
        WebConfig.load(path)


def test_bcrypt_is_missing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bcrypt", None)
    with pytest.raises(WebConfigError, match=r"pip install '.\[web\]'"):
        load(path, f"basic_auth_users:\n  alice: {ALICE}\n")


# Users

USERS = f"basic_auth_users:\n  alice: {ALICE}\n  bob: {BOB}\n"


def test_users(path: Path, bcrypt: FakeBcrypt) -> None:
    config = load(path, USERS)
    assert config.users
    assert config.authorize(basic("alice", ALICE[-4:]))
    assert config.authorize(basic("bob", "BBBB").replace("Basic", "bASIC "))
    assert not config.authorize(basic("alice", "BBBB"))
    assert not config.authorize(basic("bob", ALICE[-4:]))
    assert not config.authorize(basic("carol", "BBBB"))
    assert not config.authorize(basic("alice", "a\0b"))


@pytest.mark.parametrize(
    "header", [None, "", "Basic", "Basic !", "Basic YWxpY2U=", "Bearer abc", "Basic é", "Digest x"]
)
def test_malformed_authorization_headers(path: Path, bcrypt: FakeBcrypt, header: str | None) -> None:
    config = load(path, USERS)
    assert not config.authorize(header)
    assert bcrypt.calls == []


@given(st.text(max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_authorization_header_is_rejected(path: Path, bcrypt: FakeBcrypt, header: str) -> None:
    if not path.exists():
        path.write_text(USERS)
    config = WebConfig.load(path)
    assert not config.authorize(header)
    assert not config.authorize("Basic " + header)


def test_only_verified_credentials_are_cached(path: Path, bcrypt: FakeBcrypt) -> None:
    config = load(path, USERS)
    for _ in range(3):
        assert config.authorize(basic("bob", "BBBB"))
    assert len(bcrypt.calls) == 1
    for _ in range(3):
        assert not config.authorize(basic("bob", "AAAA"))
    assert len(bcrypt.calls) == 4
    assert b"BBBB" not in b"".join(config._verified_credentials), "a password is kept in the clear"


def test_an_unknown_user_takes_as_long_as_a_known_one(path: Path, bcrypt: FakeBcrypt) -> None:
    config = load(path, USERS)
    config.authorize(basic("carol", "x"))
    assert bcrypt.calls == [(b"x", BOB.encode())]  # the costliest hash of all


def test_cache_of_credentials_is_bounded(path: Path, bcrypt: FakeBcrypt) -> None:
    config = load(path, USERS)
    for n in range(1000):
        assert config.authorize(basic("bob", f"BBBB{n}"))
    assert len(config._verified_credentials) <= 100


def test_a_long_password(path: Path, bcrypt: FakeBcrypt) -> None:
    assert load(path, USERS).authorize(basic("bob", "B" * 100))


def test_with_the_real_bcrypt(path: Path) -> None:
    real = pytest.importorskip("bcrypt")
    hashed = real.hashpw(b"p\xc3\xa4ss:word", real.gensalt(4)).decode().replace("$2b$", "$2y$")
    config = load(path, f"basic_auth_users:\n  alice: {hashed}\n")
    assert config.authorize(basic("alice", "päss:word"))
    assert config.authorize(basic("alice", "päss:word"))
    assert not config.authorize(basic("alice", "pass:word"))
    assert not config.authorize(basic("alice", "x" * 200))
    assert not config.authorize(basic("alice", "a\0b"))
    assert not config.authorize(basic("carol", "päss:word"))


# Rate limit


def test_rate_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("gpu_exporter.webconfig.time.monotonic", lambda: now)
    config = load(path, "rate_limit:\n  interval: 500ms\n  burst: 3\n")
    assert [config.allow_request() for _ in range(5)] == [True, True, True, False, False]
    now += 0.5
    assert [config.allow_request() for _ in range(2)] == [True, False]
    now += 100
    assert [config.allow_request() for _ in range(5)] == [True, True, True, False, False]


# TLS


class CertificateAuthority:
    """Certificates made with openssl: a CA, and those it signs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.make("ca", "/CN=test CA")

    def make(self, name: str, subject: str = "/CN=localhost", san: str = "", ca: str = "") -> None:
        extra = ["-addext", f"subjectAltName={san}"] if san else []
        signer = ["-CA", f"{ca}.crt", "-CAkey", f"{ca}.key"] if ca else []
        command = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", subject, *extra, *signer,
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_binary("openssl")
    authority = CertificateAuthority(tmp_path_factory.mktemp("tls"))
    authority.make("server", san="DNS:localhost,IP:127.0.0.1")
    authority.make("other", san="DNS:localhost,IP:127.0.0.1")
    authority.make("client", "/CN=prometheus", san="DNS:prometheus.example,URI:spiffe://x/p", ca="ca")
    authority.make("stranger", "/CN=prometheus", san="DNS:prometheus.example")
    return authority.folder


@pytest.fixture
def folder(certificates: Path, tmp_path: Path) -> Path:
    for file in certificates.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path


SERVER = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"


class TlsEchoServer:
    """Does the TLS handshake as the exporter does, and sends one line."""

    def __init__(self, config) -> None:
        self._config = config
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(plain, self._config().ssl_context()), daemon=True).start()

    def _answer(self, plain: socket.socket, context: ssl.SSLContext) -> None:
        plain.settimeout(5)
        try:
            with context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as connection:
                connection.do_handshake()
                while data := connection.recv(100):
                    connection.sendall(data)
        except OSError:
            plain.close()

    def close(self) -> None:
        self._listener.close()


def tls_handshake(
    folder: Path, config, trusted: str = "server", client: str = "", **options
) -> tuple[str | None, tuple[str, str, int] | None]:
    """TLS version and cipher, if a line is received."""
    echo = TlsEchoServer(config if callable(config) else lambda: config)
    try:
        with connect(folder, echo.port, trusted, client, **options) as connection:
            connection.sendall(b"hello")
            if connection.recv(100) != b"hello":
                raise ConnectionError("closed")
            return connection.version(), connection.cipher()
    finally:
        echo.close()


def connect(folder: Path, port: int, trusted: str, client: str = "", ciphers: str = "", most=None) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(folder / f"{trusted}.crt"))
    if client:
        context.load_cert_chain(folder / f"{client}.crt", folder / f"{client}.key")
    if ciphers:
        context.set_ciphers(ciphers)
    if most:
        context.maximum_version = most
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=60), server_hostname="localhost")


def tls_config(folder: Path, more: str = "") -> WebConfig:
    return load(folder / "web.yml", SERVER + more)


def test_a_handshake(folder: Path) -> None:
    config = tls_config(folder)
    assert config.ssl_context() is config.ssl_context()
    assert tls_handshake(folder, config)[0] == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        tls_handshake(folder, config, trusted="other")
    context = config.ssl_context()
    assert context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_inline_certificates(folder: Path) -> None:
    def indented(name: str) -> str:
        return "".join(f"    {line}\n" for line in (folder / name).read_text().splitlines())

    text = f"tls_server_config:\n  cert: |\n{indented('server.crt')}  key: |\n{indented('server.key')}"
    text += f"  client_auth_type: RequireAndVerifyClientCert\n  client_ca: |\n{indented('ca.crt')}"
    config = load(folder / "web.yml", text)
    assert tls_handshake(folder, config, client="client")[0] == "TLSv1.3"


def test_versions_and_ciphers(folder: Path) -> None:
    config = tls_config(
        folder,
        "  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n"
        "  curve_preferences: [CurveP384]\n  prefer_server_cipher_suites: false\n",
    )
    version, cipher = tls_handshake(folder, config)
    assert version == "TLSv1.2"
    assert cipher
    assert cipher[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
    with pytest.raises(OSError):
        tls_handshake(folder, config, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")
    context = config.ssl_context()
    assert context
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE


def test_only_tls13_suites_disable_older_versions(folder: Path) -> None:
    config = tls_config(folder, "  cipher_suites: [TLS_AES_128_GCM_SHA256]\n")
    assert tls_handshake(folder, config)[0] == "TLSv1.3"
    with pytest.raises(OSError):
        tls_handshake(folder, config, most=ssl.TLSVersion.TLSv1_2)
    with pytest.raises(WebConfigError, match="max_version: no TLS version is enabled"):
        tls_config(folder, "  cipher_suites: [TLS_AES_128_GCM_SHA256]\n  max_version: TLS12\n")
    with pytest.raises(WebConfigError, match="no TLS version is enabled"):
        tls_config(folder, "  min_version: TLS13\n  max_version: TLS12\n")


def test_openssl_supports_every_suite_and_curve(folder: Path) -> None:
    from gpu_exporter.webconfig.tls import _CIPHERS, _CURVES

    for name in _CIPHERS:
        tls_config(folder, f"  cipher_suites: [{name}]\n")
    for name, openssl in _CURVES.items():
        config = f"  curve_preferences: [{name}]\n"
        if is_settable(openssl):
            assert tls_handshake(folder, tls_config(folder, config))[0]
        else:
            with pytest.raises(WebConfigError, match="remove curve_preferences"):
                tls_handshake(folder, tls_config(folder, config))


def is_settable(curve: str) -> bool:
    """Some builds of Python refuse X25519."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ecdh_curve(curve)
    except (ssl.SSLError, ValueError):
        return False
    return True


def test_clients(folder: Path) -> None:
    config = tls_config(folder, "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n")
    assert tls_handshake(folder, config, client="client")[0]
    for client in ("", "stranger"):
        with pytest.raises(OSError):
            tls_handshake(folder, config, client=client)
    config = tls_config(folder, "  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.crt\n")
    assert tls_handshake(folder, config)[0]
    with pytest.raises(OSError):
        tls_handshake(folder, config, client="stranger")


@pytest.mark.parametrize(
    ("sans", "good"), [("prometheus.example", True), ("'spiffe://x/p', y", True), ("other.example", False)]
)
def test_clients_by_alternative_name(folder: Path, sans: str, good: bool) -> None:
    config = tls_config(
        folder,
        f"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  client_allowed_sans: [{sans}]\n",
    )
    if good:
        assert tls_handshake(folder, config, client="client")[0]
    else:
        with pytest.raises(OSError):
            tls_handshake(folder, config, client="client")


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("server.key", "rubbish", "web.yml:2: tls_server_config.cert_file: .*use a certificate and its key"),
        ("server.crt", "rubbish", "web.yml:2: tls_server_config.cert_file"),
        ("server.key", None, "web.yml:2: tls_server_config.cert_file: No such file"),
        ("ca.crt", "rubbish", "web.yml:5: tls_server_config.client_ca_file: .*use a CA certificate in PEM"),
    ],
)
def test_bad_certificates(folder: Path, file: str, content: str | None, why: str) -> None:
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(WebConfigError, match=why):
        tls_config(
            folder,
            "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n".replace("\n  c", "\n  c"),
        )


def test_a_key_of_another_certificate_and_an_encrypted_one(folder: Path) -> None:
    shutil.copy(folder / "other.key", folder / "server.key")
    with pytest.raises(WebConfigError, match="MISMATCH"):
        tls_config(folder)
    subprocess.run(
        ["openssl", "ec", "-aes128", "-passout", "pass:x", "-in", "other.key", "-out", "server.key"],
        check=True, capture_output=True, cwd=folder,
    )  # fmt: skip
    with pytest.raises(WebConfigError, match="the key is encrypted"):
        tls_config(folder)


@pytest.mark.skipif(hasattr(ssl.SSLContext, "set_groups"), reason="this Python can")
def test_several_curves(folder: Path) -> None:
    with pytest.raises(WebConfigError, match=r":4: tls_server_config\.curve_preferences: .*set one curve only"):
        tls_config(folder, "  curve_preferences: [CurveP256, X25519]\n")


# Changes


def test_has_changed(folder: Path) -> None:
    config = tls_config(folder)
    assert not config.has_changed()
    (folder / "server.key").touch()
    assert config.has_changed()
    config = tls_config(folder)
    (folder / "web.yml").unlink()
    assert config.has_changed()


class FakeClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def replace(folder: Path, name: str) -> None:
    for suffix in ("crt", "key"):
        shutil.copy(folder / f"{name}.{suffix}", folder / f"new.{suffix}")
        (folder / f"new.{suffix}").rename(folder / f"server.{suffix}")


def test_a_new_certificate_is_served_and_old_connections_stay(folder: Path) -> None:
    clock = FakeClock()
    shutil.copy(folder / "server.crt", folder / "first.crt")
    (folder / "web.yml").write_text(SERVER)
    keeper = WebConfigReloader(folder / "web.yml", 1.0, clock)
    echo = TlsEchoServer(keeper.current)
    try:
        with connect(folder, echo.port, "first") as old:
            replace(folder, "other")
            connect(folder, echo.port, "first").close()  # not checked yet
            clock.now += 1
            connect(folder, echo.port, "other").close()
            with pytest.raises(ssl.SSLCertVerificationError):
                connect(folder, echo.port, "first")
            old.sendall(b"still")
            assert old.recv(100) == b"still"
    finally:
        echo.close()


def test_invalid_edit_changes_nothing_and_is_logged_once(
    path: Path, bcrypt: FakeBcrypt, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    path.write_text(USERS)
    keeper = WebConfigReloader(path, 1.0, clock)
    first = keeper.current()
    path.write_text("basic_auth_users:\n  alice: hunter2\n")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            clock.now += 1
            assert keeper.current() is first
        assert len(caplog.records) == 1
        assert "basic_auth_users.alice" in caplog.text
        path.write_text(f"basic_auth_users:\n  alice: {ALICE}\n")
        clock.now += 1
        assert not keeper.current().authorize(basic("bob", "BBBB"))
        assert "reloaded " in caplog.text
    assert keeper.current().authorize(basic("alice", ALICE[-4:]))


def test_edit_cannot_disable_tls(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    (folder / "web.yml").write_text(SERVER)
    keeper = WebConfigReloader(folder / "web.yml", 1.0, clock)
    (folder / "web.yml").write_text("")
    clock.now += 1
    assert keeper.current().ssl_context() is not None
    assert "restart the exporter" in caplog.text


def test_changes_are_checked_once_per_interval(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    (folder / "web.yml").write_text(SERVER)
    keeper = WebConfigReloader(folder / "web.yml", 1.0, clock)
    checks = 0

    def has_changed(config: WebConfig) -> bool:
        nonlocal checks
        checks += 1
        return False

    monkeypatch.setattr(WebConfig, "has_changed", has_changed)
    for _ in range(100):
        clock.now += 1 / 16
        keeper.current()
    assert checks == 6


def test_ssl_and_bcrypt_are_imported_only_if_needed(path: Path) -> None:
    path.write_text("http_server_config: {}\n")
    code = (
        "import sys; from pathlib import Path; from gpu_exporter.webconfig import WebConfig; "
        f"WebConfig.load(Path({str(path)!r})); print([m for m in ('ssl', 'bcrypt') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
