"""What to do about what INT8 loses: remedies that were tried, told in order."""
