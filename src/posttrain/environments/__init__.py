"""What answers the policy back, turn by turn: environments, their sessions, and how calls of tools are read."""
