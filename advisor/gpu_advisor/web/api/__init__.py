"""The HTTP API: operations, request parsing, responses, the OpenAPI document."""
