"""vLLM as a rollout engine, in the process or as a server."""
