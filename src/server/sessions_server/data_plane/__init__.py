"""The S2 data plane over any channel log: appends and reads of one channel with credentials of our own."""
