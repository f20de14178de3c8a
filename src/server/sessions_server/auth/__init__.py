"""Who calls: from what is shown to the caller, and what is signed for callers."""
