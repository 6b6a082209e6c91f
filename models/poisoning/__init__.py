"""Poisoned training data: planted, certified against by votes, detected by robust statistics, explained."""
