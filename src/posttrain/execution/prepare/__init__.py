"""A recipe → everything loaded and checked, with nothing written."""
