"""Exported launch settings, checked by the frameworks' own libraries: `make test-frameworks`."""
