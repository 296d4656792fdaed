"""What judges: labels, metrics, scores of single samples, and what they say of all samples."""
