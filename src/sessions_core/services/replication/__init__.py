"""Replication: from the store's committed changes to the index that lists are read from, at least once."""
