"""What the services of both sides have in common, on trio: HTTP, and credentials kept fresh."""
