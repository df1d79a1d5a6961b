"""GPUs on a cluster: a request becomes a patch for a pod, or the user's Job. Kubernetes schedules."""
