"""Floor 2, the methods: one file or folder each; none knows another."""
