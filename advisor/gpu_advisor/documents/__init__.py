"""Documents of the API: the shapes that web and reports share."""
