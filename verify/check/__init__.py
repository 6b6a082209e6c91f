"""Floor 1, the second opinion: every decided verdict is checked here before anybody hears of it."""
