"""Models that a policy is compared with, and that take no gradient: what it started from, and its teacher."""
