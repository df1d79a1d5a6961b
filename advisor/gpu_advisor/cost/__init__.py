"""What a job costs where: a dated catalogue of GPU instances, and the cheapest for a job by cost of its work."""
