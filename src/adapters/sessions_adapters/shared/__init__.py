"""What stores of several technologies have in common. No driver here: rows and keys are whatever the technology says."""
