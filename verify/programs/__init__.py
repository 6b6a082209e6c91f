"""Floor 1, linear and integer programs: one neutral form, networks written in it, solvers, and bounds that are safe
whatever the solver did."""
