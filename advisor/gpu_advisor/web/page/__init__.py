"""The HTML page: views, charts, templates."""
