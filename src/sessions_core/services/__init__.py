"""Use cases: decisions of the domain carried out through the ports."""
