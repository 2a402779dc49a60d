"""What a run goes on from, in files."""
