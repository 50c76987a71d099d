"""The instance role's credentials on their way to programs in an enclave. Pure.

`documents` are the JSON forms, `regions` the names of regions, `rotation` says when to fetch new
ones; `metadata_client` is our part of a conversation with the instance metadata service (IMDSv2),
`endpoints` what programs are answered.
"""
