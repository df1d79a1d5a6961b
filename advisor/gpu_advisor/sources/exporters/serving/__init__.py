"""Inference servers: which metric of each server is which serving signal."""
