"""Read the source into the facts of an evaluation: detect exporters, query signals, join series."""
