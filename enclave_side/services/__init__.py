"""Services of the enclave: processes of their own, on trio."""
