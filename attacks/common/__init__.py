"""What attacks share: the interface, tasks and records, losses, step loops, random numbers."""
