"""The pure core: signals -> facts -> checks, diagnosis and policies -> recommendations. No clock, disk or network."""
