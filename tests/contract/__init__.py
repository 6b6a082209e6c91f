"""Laws that every method must obey, whatever it is made of."""
