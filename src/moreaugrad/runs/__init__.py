"""Commands at work: plans, the engine, and a run for each command."""
