"""The evaluation loop, and what puts the running program together."""
