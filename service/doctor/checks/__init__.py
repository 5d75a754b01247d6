"""What `doctor` checks, one module per subject."""
