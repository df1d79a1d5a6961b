"""How many replicas a pool should have: pure functions of its demand history, the same live and in a replay."""
