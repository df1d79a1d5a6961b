"""A simulated inference server: queueing physics, written before the advisor's rules and independent of them."""
