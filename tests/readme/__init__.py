"""The README, followed to the letter on a bare Debian: `make test-readme`."""
