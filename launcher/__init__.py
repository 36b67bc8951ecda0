"""`likestep COMMAND`: one command line for the demo, the servers, the trainer and what an administrator does."""
