"""The section tls_server_config: parsing, and the SSLContext made from it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml

from gpu_exporter.webconfig.document import WebConfigError, YamlDocument

if TYPE_CHECKING:
    import ssl

_TLS_KEYS = (
    "cert", "key", "client_ca", "cert_file", "key_file", "client_ca_file", "client_auth_type", "client_allowed_sans",
    "min_version", "max_version", "cipher_suites", "prefer_server_cipher_suites", "curve_preferences",
)  # fmt: skip
_TLS_VERSIONS = {"TLS10": "TLSv1", "TLS11": "TLSv1_1", "TLS12": "TLSv1_2", "TLS13": "TLSv1_3"}
_VERIFYING_AUTH_TYPES = ("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
_NON_VERIFYING_AUTH_TYPES = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
#: Go's names -> OpenSSL's. The suites of TLS 1.3 are always enabled.
_CIPHERS = {
    f"TLS_ECDHE_{kind}_WITH_{go}": f"ECDHE-{kind}-{openssl}"
    for kind in ("ECDSA", "RSA")
    for go, openssl in (
        ("AES_128_CBC_SHA", "AES128-SHA"),
        ("AES_256_CBC_SHA", "AES256-SHA"),
        ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
        ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
        ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
    )
}
_TLS13_CIPHERS = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}

_CURVES_HINT = (
    "before Python 3.15 set one curve only, and with Python 3.11.2 (Debian 12) only CurveP256, CurveP384 or CurveP521; "
    "or remove curve_preferences"
)


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """The section as written, with absolute paths. `locations`: key -> where it is in the file, for errors."""

    values: dict[str, str]
    ciphers: tuple[str, ...]
    curves: tuple[str, ...]
    sans: frozenset[str]
    prefer_server: bool
    locations: dict[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the section names."""
        return tuple(path for key, path in self.values.items() if key.endswith("_file"))


def parse_tls(document: YamlDocument, node: yaml.Node | None) -> TlsConfig | None:
    """Parse the section; None if it is missing. Raises WebConfigError."""
    section = "tls_server_config"
    entries = document.mapping(node, section, _TLS_KEYS)
    if not entries or node is None:
        return None
    lists = ("client_allowed_sans", "cipher_suites", "curve_preferences")
    plain = {key: value for key, value in entries.items() if key not in (*lists, "prefer_server_cipher_suites")}
    values = {key: text for key, value in plain.items() if (text := document.string(value, f"{section}.{key}"))}
    for key in [key for key in values if key.endswith("_file")]:
        values[key] = str(document.path.parent / values[key])
    for kind, needed in (("cert", True), ("key", True), ("client_ca", False)):
        given = [key for key in (kind, f"{kind}_file") if key in values]
        if len(given) == 2:
            raise document.make_error(entries[kind], f"{section}.{kind}", f"conflicts with {kind}_file; remove one")
        if needed and not given:
            raise document.make_error(node, section, f"{kind}_file is missing; add it")
    for key in ("min_version", "max_version"):
        if key in values:
            document.require_one_of(entries[key], f"{section}.{key}", values[key], tuple(_TLS_VERSIONS))
    ciphers, curves, sans = (
        document.string_list(entries.get(key), f"{section}.{key}") for key in lists[1:] + lists[:1]
    )
    for key, names, known in (
        ("cipher_suites", ciphers, (*_CIPHERS, *_TLS13_CIPHERS)),
        ("curve_preferences", curves, tuple(_CURVES)),
    ):
        for name in names:
            document.require_one_of(entries[key], f"{section}.{key}", name, known)
    _check_client_auth(document, node, entries, values, sans)
    prefer = entries.get("prefer_server_cipher_suites")
    return TlsConfig(
        values,
        ciphers,
        curves,
        frozenset(sans),
        prefer is None or document.boolean(prefer, f"{section}.prefer_server_cipher_suites"),
        {key: f"{document.path}:{value.start_mark.line + 1}: {section}.{key}" for key, value in entries.items()},
    )


def _check_client_auth(
    document: YamlDocument,
    node: yaml.Node,
    entries: dict[str, yaml.Node],
    values: dict[str, str],
    sans: tuple[str, ...],
) -> None:
    auth, key = values.get("client_auth_type", "NoClientCert"), "tls_server_config.client_auth_type"
    place = entries.get("client_auth_type", node)
    if auth in _NON_VERIFYING_AUTH_TYPES:
        raise document.make_error(place, key, f"{auth} does not verify certificates; use RequireAndVerifyClientCert")
    document.require_one_of(place, key, auth, ("NoClientCert", *_VERIFYING_AUTH_TYPES))
    has_ca = "client_ca" in values or "client_ca_file" in values
    if has_ca and auth == "NoClientCert":
        raise document.make_error(place, key, "client_ca has no effect without it; set RequireAndVerifyClientCert")
    if auth != "NoClientCert" and not has_ca:
        raise document.make_error(place, key, "clients cannot be verified without a CA; set client_ca_file")
    if sans and auth != "RequireAndVerifyClientCert":
        raise document.make_error(
            entries["client_allowed_sans"],
            "tls_server_config.client_allowed_sans",
            "requires client_auth_type: RequireAndVerifyClientCert",
        )


def create_ssl_context(tls: TlsConfig) -> ssl.SSLContext:
    """Create the context; reads the certificates and the key. Raises WebConfigError."""
    import ssl

    values, locations = tls.values, tls.locations
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    explain_errors = _explain_errors(
        locations, ("cert_file", "cert"), "use a certificate and its key, both in PEM format"
    )
    with explain_errors, _pem_path(values, "cert") as cert, _pem_path(values, "key") as key:
        context.load_cert_chain(cert, key, password=_refuse_password)
    if "client_auth_type" in values and values["client_auth_type"] in _VERIFYING_AUTH_TYPES:
        required = values["client_auth_type"] == "RequireAndVerifyClientCert"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        with _explain_errors(locations, ("client_ca_file", "client_ca"), "use a CA certificate in PEM format"):
            context.load_verify_locations(values.get("client_ca_file"), cadata=values.get("client_ca"))
    _set_versions(context, tls)
    if names := [_CIPHERS[name] for name in tls.ciphers if name in _CIPHERS]:
        with _explain_errors(locations, ("cipher_suites",), "OpenSSL on this machine supports none of them"):
            context.set_ciphers(":".join(names))
    if not tls.prefer_server:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if tls.curves:
        with _explain_errors(locations, ("curve_preferences",), _CURVES_HINT):
            _set_curves(context, [_CURVES[name] for name in tls.curves])
    if tls.sans:
        context.sslsocket_class = _san_checking_socket(tls.sans)
    return context


def _set_versions(context: ssl.SSLContext, tls: TlsConfig) -> None:
    import ssl

    min_version = ssl.TLSVersion[_TLS_VERSIONS[tls.values.get("min_version", "TLS12")]]
    max_version = ssl.TLSVersion[_TLS_VERSIONS[tls.values.get("max_version", "TLS13")]]
    if tls.ciphers and not set(tls.ciphers) & _CIPHERS.keys():
        min_version = ssl.TLSVersion.TLSv1_3  # no suite for TLS 1.2 is enabled
    with _explain_errors(tls.locations, ("max_version", "min_version", "cipher_suites"), "raise max_version"):
        if min_version > max_version:
            raise ValueError("no TLS version is enabled")
        context.minimum_version, context.maximum_version = min_version, max_version


@contextmanager
def _explain_errors(locations: dict[str, str], keys: tuple[str, ...], hint: str) -> Iterator[None]:
    """Convert errors of ssl to WebConfigError, located at the first of these keys that is in the file."""
    try:
        yield
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        what = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        place = next((locations[key] for key in keys if key in locations), "tls_server_config")
        raise WebConfigError(f"{place}: {what}; {hint}") from error


def _refuse_password() -> str:
    raise ValueError("the key is encrypted; remove its passphrase")


@contextmanager
def _pem_path(values: dict[str, str], kind: str) -> Iterator[str]:
    """A path to the PEM data, inline or in a file: ssl only loads from paths."""
    if f"{kind}_file" in values:
        yield values[f"{kind}_file"]
        return
    with open(os.memfd_create(kind), "w+", encoding="utf-8") as memory:  # in memory: a key must not be written to disk
        memory.write(values[kind])
        memory.flush()
        yield f"/proc/self/fd/{memory.fileno()}"


def _set_curves(context: ssl.SSLContext, curves: list[str]) -> None:
    set_groups = getattr(context, "set_groups", None)
    if set_groups:
        set_groups(":".join(curves))
    elif len(curves) == 1:
        context.set_ecdh_curve(curves[0])
    else:
        raise ValueError("this Python cannot set several curves")


def _san_checking_socket(sans: frozenset[str]) -> type[ssl.SSLSocket]:
    """A socket class whose handshake fails unless the client certificate has one of these alternative names."""
    import ssl

    class SanCheckingSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            certificate = self.getpeercert() or {}
            names = certificate.get("subjectAltName", ())
            if not any(name[1] in sans for name in names if isinstance(name, tuple)):
                raise ssl.SSLCertVerificationError("client certificate has none of client_allowed_sans")

    return SanCheckingSocket
