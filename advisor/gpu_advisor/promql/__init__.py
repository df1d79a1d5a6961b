"""The expression language of signals, and its PromQL compiler."""
