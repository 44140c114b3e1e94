"""Several processes, one model: who is there, and how their gradients become one."""
