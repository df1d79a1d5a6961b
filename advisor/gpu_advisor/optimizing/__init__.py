"""From targets to what to change: what is asked of the advisor, and the files that a person applies.

Files, never a cluster: what to run where is for people and their pipelines to say.
"""
