"""Exit 0 if the server at the URL answers within 3 seconds, with or without TLS and login. The images have no curl.

401 is an answer: with a login, the probe has no password. Certificates are not verified: the name is this container's.
"""

from __future__ import annotations

import ssl
import sys
import urllib.error
import urllib.request

UNVERIFIED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
UNVERIFIED.check_hostname = False
UNVERIFIED.verify_mode = ssl.CERT_NONE
# No proxy: one from the environment cannot reach this container.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=UNVERIFIED))


def problem(url: str) -> str:
    """Why the server is not healthy; empty if it is."""
    try:
        opener.open(url, timeout=3).close()
    except urllib.error.HTTPError as error:
        return "" if error.code == 401 else str(error)
    except OSError as error:
        # A server that demands a client's certificate is there.
        return "" if "CERTIFICATE_REQUIRED" in str(error).upper() else str(error) or type(error).__name__
    except Exception as error:  # noqa: BLE001 no HTTP: TLS, perhaps
        return str(error) or type(error).__name__
    return ""


if __name__ == "__main__":
    plain = sys.argv[1]
    found = problem(plain)
    if found and problem(plain.replace("http://", "https://", 1)):
        sys.exit(f"{plain}: {found}")
