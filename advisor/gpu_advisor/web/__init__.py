"""The HTTP server, the HTTP API and the HTML pages."""
