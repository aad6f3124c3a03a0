"""What a run leaves behind: its directory, its status, its numbers and its pictures."""
