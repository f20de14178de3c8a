"""Pure, synchronous rules and values: facts in, decisions out. No I/O, no clock, no randomness."""
