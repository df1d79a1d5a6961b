"""Other exporters' metric names, served from our readings."""
