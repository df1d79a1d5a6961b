"""The precisions that workloads are probed in; a module of its own, because the command line must not import torch."""

PRECISIONS = ("float32", "float16", "bfloat16")
