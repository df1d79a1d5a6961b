"""The advisor: reads GPU utilization from Prometheus, diagnoses what is off target, and recommends what to do."""


def __getattr__(name: str) -> str:
    # Read on demand: importlib.metadata is slow to import, and most imports of this package never ask for the version.
    if name == "__version__":
        from importlib.metadata import version

        return version("gpu-advisor")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
