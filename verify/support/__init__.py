"""Floor 0, plumbing: killable child processes, files, options, arrays, floats, text for terminals."""
