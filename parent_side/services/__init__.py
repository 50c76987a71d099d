"""Services of the parent: processes of their own, on trio."""
