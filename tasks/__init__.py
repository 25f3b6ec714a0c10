"""Units of work with an effect outside the process: plan, train, sample, evaluate, store, draw."""
