"""What the Nitro Secure Module (NSM) says and is told: bytes in, values out."""
