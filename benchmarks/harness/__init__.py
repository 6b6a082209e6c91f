"""What runs and records comparisons: the bracket over a data set, suites of instances, the store, the workers."""
