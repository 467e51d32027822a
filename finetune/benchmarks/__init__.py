"""Time and memory: `benchmark`. No other room imports this one."""
