"""Planning a training job: whether it fits, and how to split it. Pure arithmetic from published formulas."""
