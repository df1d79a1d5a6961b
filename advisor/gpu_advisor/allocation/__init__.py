"""Who may use which GPU, and until when: requests, inventory, placement and leases."""
