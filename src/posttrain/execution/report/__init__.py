"""What a run's folder tells, for people: a page of HTML, and the card of the model."""
