"""How many replicas a pool should have: pure functions of a trail and of settings, the same live and in a replay."""
