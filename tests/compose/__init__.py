"""Tests of the running compose stack: `make test-compose`."""
