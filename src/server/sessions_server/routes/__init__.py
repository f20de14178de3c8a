"""Handlers, one module per resource. Each parses, calls the core, and answers."""
