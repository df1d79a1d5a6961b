"""The running program: the evaluation loop, and the wiring of its parts."""
