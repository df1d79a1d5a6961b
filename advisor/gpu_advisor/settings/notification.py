"""Notification and web settings."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, model_validator

from gpu_advisor.settings.field_types import Seconds, StrictModel, Url, validate_host_port

#: A bcrypt hash in the modular crypt format.
BCRYPT_PATTERN = r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}"


class AlertmanagerSettings(StrictModel):
    url: Url = Field(description="as in http://127.0.0.1:9093")
    timeout_seconds: float = Field(5, gt=0, le=60)
    username: str = ""
    password: SecretStr = SecretStr("")


class OutcomeSettings(StrictModel):
    """Outcomes of recommendations, measured once a change has taken effect."""

    settle_seconds: Seconds = Field(
        900, description="delay between the end of a recommendation and the measurement of its outcome"
    )


class WebSettings(StrictModel):
    listen_address: Annotated[str, AfterValidator(validate_host_port)] = "127.0.0.1:9817"
    external_url: str = Field("", description="external URL of the page; alerts link to it")
    cert_file: str = Field("", description="serve over TLS, with this certificate (PEM)")
    key_file: str = Field("", description="the certificate's key (PEM)")
    users: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="name: bcrypt hash, as from `htpasswd -nBC 10 NAME`; other logins are rejected",
    )
    bearer_token_file: str = Field(
        "", description="file with a token that replaces a user's login; read again when it changes"
    )
    write_token_file: str = Field(
        "",
        description="file with a token that requests need to snooze, allocate, renew or release, unless they have a "
        "login; created with a random token if it does not exist, read again when it changes",
    )
    allowed_hosts: list[str] = Field(
        default_factory=list,
        description="names under which clients reach this server without a login, besides IP addresses, localhost and "
        "external_url's host; others are refused, against DNS rebinding",
    )
    enable_lifecycle: bool = Field(False, description="enable POST /-/reload, which reads the settings file again")

    @model_validator(mode="after")
    def _together(self) -> WebSettings:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together: give both")
        for name, hash_ in self.users.items():
            if not name or ":" in name or not re.fullmatch(BCRYPT_PATTERN, hash_.get_secret_value()):
                raise ValueError(f"users: {name!r} needs a bcrypt hash, as from `htpasswd -nBC 10 {name}`")
        return self
