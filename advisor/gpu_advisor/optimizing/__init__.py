"""Targets -> a what-if evaluation -> files that a person or a pipeline applies. Nothing here touches a cluster."""
