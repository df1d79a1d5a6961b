"""TLS certificates for servers of the tests."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

from tests.servers import require_binary


def self_signed(folder: Path, address: str = "127.0.0.1") -> ssl.SSLContext:
    """A server's TLS context, from cert.pem and key.pem, which it creates in the folder for this IP address."""
    command = [
        require_binary("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-days", "2", "-subj", f"/CN={address}", "-addext", f"subjectAltName=IP:{address}",
        "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
