"""The command `benchmark`: time and memory. No other folder of the trainer imports this one."""
