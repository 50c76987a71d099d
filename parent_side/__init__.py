"""The parent's side: policy, name resolution, dialling and relaying for its enclaves."""
