"""JSON documents of the allocation API."""
