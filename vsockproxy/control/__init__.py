"""I/O on trio: supervision of workers and of the command. The only home of trio."""
