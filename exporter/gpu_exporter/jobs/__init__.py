"""What jobs and scripts report in files: node_exporter's textfile convention."""
