"""Tests against a real vLLM, its CPU build: `make test-vllm`."""
