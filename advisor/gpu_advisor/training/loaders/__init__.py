"""Getting batches to the device in time: how many workers, and copies beside the computation."""
