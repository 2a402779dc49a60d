"""What one does with a model when it is trained: ask it, talk to it, serve it, merge it, send it."""
