"""Text and pictures for people: one escape function for each format, and the pieces of SVG charts."""
