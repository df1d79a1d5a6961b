"""GPU types, their memory and their names in Kubernetes."""
