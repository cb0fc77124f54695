"""Text, speakers and teacher: everything before the first training step."""
