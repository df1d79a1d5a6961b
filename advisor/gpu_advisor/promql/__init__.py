"""The closed language of signal expressions, and its text in PromQL."""
