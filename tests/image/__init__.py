"""Images of enclaves, built by the steps of configs/image and booted as PID 1."""
