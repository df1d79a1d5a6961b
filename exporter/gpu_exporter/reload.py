"""The running exporter, whose settings can be read again without ending connections."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import fields, replace

from gpu_exporter.config import ExporterSettings, SettingsError
from gpu_exporter.sampling.drivers import DriverTask
from gpu_exporter.sampling.sampler import FIRST_READING_TIMEOUT_SECONDS, Sampler
from gpu_exporter.server import ActionError

log = logging.getLogger(__name__)

#: Settings of the listener: they need a restart.
FIXED_SETTINGS = ("listen_address", "web_config_file", "enable_lifecycle", "telemetry_path", "log_level")
RELEASE_SECONDS = 60.0
RELEASE_TIMEOUT_SECONDS = 10.0


class ReloadableSampler:
    """A sampler, and how to build its successor. `load` reads the settings again; it raises SettingsError."""

    def __init__(
        self,
        settings: ExporterSettings,
        load: Callable[[], ExporterSettings],
        build: Callable[[ExporterSettings], Sampler],
    ) -> None:
        self._settings = settings
        self._load = load
        self._build = build
        self._sampler = build(settings)
        self._page: Callable[[], bytes] = self._sampler.page
        self._reloading = threading.Lock()

    def start(self) -> None:
        self._sampler.start(FIRST_READING_TIMEOUT_SECONDS)

    def stop(self) -> None:
        self._sampler.stop()

    def page(self) -> bytes:
        return self._page()

    def release_drivers(self) -> None:
        self._sampler.release_drivers()

    def reload(self) -> None:
        """Read the settings again and apply them. Raises ActionError; then the previous ones stay in effect."""
        with self._reloading:
            try:
                loaded = self._load()
                fixed = {name: getattr(self._settings, name) for name in FIXED_SETTINGS}
                if changed := [name for name, value in fixed.items() if getattr(loaded, name) != value]:
                    keys = {each.name: each.metadata.get("key", each.name) for each in fields(loaded)}
                    log.warning("restart the exporter to apply: %s", ", ".join(keys[name] for name in changed))
                settings = replace(loaded, **fixed)
                sampler = self._build(settings)
                self._exchange(sampler)
            except SettingsError as error:
                log.warning("not reloaded: %s; the previous settings stay in effect", error)
                raise ActionError(f"not reloaded: {error}") from error
            self._settings = settings
            log.info("settings reloaded")

    def _exchange(self, sampler: Sampler) -> None:
        """Let the present sampler release its drivers, which can be open once in a process; start the other one.

        The last page is served meanwhile. Raises SettingsError if a driver hangs.
        """
        before, page = self._sampler, self._sampler.page()
        self._page = lambda: page
        tasks = [task for task in before.tasks if isinstance(task, DriverTask)]
        for task in tasks:
            task.release(RELEASE_SECONDS)
        hung = [task.name for task in tasks if not task.wait_released(RELEASE_TIMEOUT_SECONDS)]
        if hung:
            for task in tasks:
                task.release(0.0)
            self._page = before.page
            raise SettingsError(f"driver {', '.join(hung)} hangs: reload once it answers, or restart the exporter")
        before.stop()
        sampler.start(FIRST_READING_TIMEOUT_SECONDS)
        self._sampler, self._page = sampler, sampler.page
