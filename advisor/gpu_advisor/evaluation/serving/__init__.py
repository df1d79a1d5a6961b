"""Inference servers: what holds them back, and which setting or number of replicas changes that. Pure."""
