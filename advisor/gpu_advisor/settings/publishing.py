"""Whom the advisor tells, and where people find it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from gpu_advisor.settings.kinds import Seconds, Strict, Url, host_and_port


class AlertmanagerSettings(Strict):
    url: Url = Field(description="as in http://127.0.0.1:9093")
    timeout_seconds: float = Field(5, gt=0, le=60)
    username: str = ""
    password: SecretStr = SecretStr("")


class Outcomes(Strict):
    """What became of advice is judged when a change has had time to show."""

    settle_seconds: Seconds = Field(900, description="from the end of advice to the look at what it did")


class Web(Strict):
    listen_address: Annotated[str, AfterValidator(host_and_port)] = "127.0.0.1:9817"
    external_url: str = Field("", description="where people reach the page; alerts link to it")
