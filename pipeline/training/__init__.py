"""One attempt of a job: the loop, the step, the engine, and all that they leave in the run."""
