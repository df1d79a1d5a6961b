"""The HTML pages: routes, templates, filters and charts."""
