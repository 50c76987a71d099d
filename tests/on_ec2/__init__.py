"""What only a Nitro instance can show; run by hand there: python -m tests.on_ec2 (see run.py)."""
