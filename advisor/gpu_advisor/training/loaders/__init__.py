"""Data loading that keeps the GPU busy: the number of workers, and copies that overlap with computation."""
