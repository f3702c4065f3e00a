"""What the second eye sees and the first did not: filling the holes that a warp leaves."""
