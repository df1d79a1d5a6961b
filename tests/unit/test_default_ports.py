"""The programs' default addresses fit together. No test listens on them: another program may."""

from __future__ import annotations

from gpu_advisor.allocation.manager import DEFAULT_ADDRESS
from gpu_advisor.commands import exporter_client, http_client, up
from gpu_advisor.settings import Settings
from gpu_advisor.settings.source import EmbeddedSourceSettings
from gpu_exporter.config import ExporterSettings

EXPORTER, ADVISOR = "127.0.0.1:9816", "127.0.0.1:9817"


def test_the_defaults_fit_together() -> None:
    settings = Settings()
    options = {option.name: option.default for option in up.command.params}
    address = ExporterSettings().address
    assert address == ("127.0.0.1", 9816)
    assert settings.web.listen_address == options["advisor_address"] == ADVISOR
    assert EmbeddedSourceSettings().targets == [options["exporter_address"]] == [EXPORTER]
    assert http_client.DEFAULT_ADVISOR == DEFAULT_ADDRESS == f"http://{ADVISOR}"
    assert f"http://{EXPORTER}" == exporter_client.DEFAULT_EXPORTER
