"""A driver that answers at random: error codes, sizes, garbage, hangs. See __main__."""
