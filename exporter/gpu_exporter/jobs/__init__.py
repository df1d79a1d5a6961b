"""Metrics that jobs and scripts write to files: node_exporter's textfile convention."""
