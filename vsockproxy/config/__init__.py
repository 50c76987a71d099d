"""Configuration: YAML to frozen, validated values, and every fault with its line and its mend."""
