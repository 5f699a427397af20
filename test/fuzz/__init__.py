"""Fuzzing of everything that reads what comes from outside: it succeeds or ends in a :class:`UserError`."""
