"""Whom the advisor tells, and where people find it."""

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
    """What became of advice is judged when a change has had time to show."""

    settle_seconds: Seconds = Field(900, description="from the end of advice to the look at what it did")


class WebSettings(StrictModel):
    listen_address: Annotated[str, AfterValidator(validate_host_port)] = "127.0.0.1:9817"
    external_url: str = Field("", description="where people reach the page; alerts link to it")
    cert_file: str = Field("", description="serve over TLS, with this certificate (PEM)")
    key_file: str = Field("", description="the certificate's key (PEM)")
    users: dict[str, SecretStr] = Field(
        default_factory=dict, description="name: bcrypt hash, as `htpasswd -nBC 10 NAME` makes; all else is refused"
    )
    bearer_token_file: str = Field("", description="read at start; who brings the token needs no user")

    @model_validator(mode="after")
    def _together(self) -> WebSettings:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together: give both")
        for name, hash_ in self.users.items():
            if not name or ":" in name or not re.fullmatch(BCRYPT_PATTERN, hash_.get_secret_value()):
                raise ValueError(f"users: {name!r} needs a bcrypt hash, as `htpasswd -nBC 10 {name}` makes")
        return self
