"""Other exporters' metric names mapped to our signals, and which exporters are present."""
