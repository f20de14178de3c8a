"""Observers that hand the core's facts on to other systems, one module for each."""
