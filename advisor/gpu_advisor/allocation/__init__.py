"""GPU allocation: requests, inventory, placement and leases."""
