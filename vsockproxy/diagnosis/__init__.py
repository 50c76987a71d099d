"""What this machine can do for us: looked at by `probes`, judged by `verdicts`."""
