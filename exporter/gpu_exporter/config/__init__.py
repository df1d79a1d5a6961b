"""Settings: one definition for the command line, the YAML file and --help."""

from gpu_exporter.config.errors import SettingsError
from gpu_exporter.config.settings import ExporterSettings, load_settings, parse_duration, validate

__all__ = ["ExporterSettings", "SettingsError", "load_settings", "parse_duration", "validate"]
