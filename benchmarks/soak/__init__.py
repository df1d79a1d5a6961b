"""Hours of scrapes and faults on the exporter and the advisor: nothing leaks, nothing is lost."""
