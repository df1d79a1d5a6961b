"""Reads the source into the facts of an evaluation: which exporters there are, what their series say."""
