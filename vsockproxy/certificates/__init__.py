"""Certificates that the enclave serves TLS with: made, read, and when they are due for renewal."""
